"""Which of two restored pictures do people prefer? The web page that asks them is ``supir.apps.study_server``.

pictures   what is compared: a benchmark's results, or folders; their identity
store      questions, participants and votes in one SQLite file
report     preferences with their intervals
"""
