"""What a node consists of while it runs, and what is looked at before.

host       whom it runs as, how many files it may open, who is told that it is there
stuck      where a loop stands that turns no more
server     a role in a process: its listeners, start, reload, drain, stop
preflight  what would keep a node from running, found before it runs
exposed    secrets that everybody on the host can read
channel    what passes between the supervisor and its workers
slot       a worker's place under the supervisor
workers    the supervisor and the workers themselves: `murder serve`
"""
