def publish(folder, results, judgement):
    from fanout_guard.stress.results import write_results

    write_results(folder / "results.json", results, judgement.members())
