"""Make INBOX of user1..userN on the Cyrus lab's backends: odd users on the first, even ones on the second."""

import argparse
import imaplib

parser = argparse.ArgumentParser()
parser.add_argument("--users", type=int, default=20)
parser.add_argument("hosts", nargs="*", default=["127.0.0.11", "127.0.0.12"])
given = parser.parse_args()

for position, host in enumerate(given.hosts):
    client = imaplib.IMAP4(host, timeout=20)
    client.login("cyrus", "secret")
    made = 0
    for number in range(1 + position, given.users + 1, len(given.hosts)):
        made += client.create(f"user/user{number}")[0] == "OK"
    client.logout()
    print(host, "made", made)
