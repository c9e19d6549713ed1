"""Judging a campaign: test cases as data, verdicts with an algebra, evidence for every word.

`harness.verify.loader.load_spec` reads the case files, `harness.verify.engine.judge_cases` measures
and judges, `harness.verify.pin.pin` fixes the criteria before a run.  The report is made by
`harness.report`.
"""
