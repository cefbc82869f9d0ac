"""Subscriptions of what has been deleted, or may not be seen any more: named, but not as if it were there."""

from pathlib import Path

from tests.kit.dialogue import Player
from tests.rooms.frontend.cluster import running_cluster

SCENE = r"""
C2= LOGIN bob secret
C2= CREATE INBOX/lent
C2= SETACL INBOX/lent ana lrs
C2= CREATE INBOX/lost
C2= SETACL INBOX/lost ana lrs
C1= LOGIN ana secret
C1= CREATE INBOX/kept
C1= CREATE INBOX/gone/below
C1= SUBSCRIBE INBOX/kept
C1= SUBSCRIBE INBOX/gone/below
C1= SUBSCRIBE user/bob/lent
C1= SUBSCRIBE user/bob/lost
C1: a1 LSUB "" *
S1: * LSUB () "/" INBOX/gone/below
S1: * LSUB () "/" INBOX/kept
S1: * LSUB () "/" user/bob/lent
S1: * LSUB () "/" user/bob/lost
S1: a1 OK Completed
C1= DELETE INBOX/gone/below
C2= DELETE INBOX/lost
C2= DELETEACL INBOX/lent ana
C1: a2 LSUB "" *
S1: * LSUB (\Noselect) "/" INBOX/gone/below
S1: * LSUB () "/" INBOX/kept
S1: * LSUB (\Noselect) "/" user/bob/lent
S1: * LSUB (\Noselect) "/" user/bob/lost
S1: a2 OK Completed
C1: a3 LIST (SUBSCRIBED) "" *
S1: * LIST (\NonExistent \HasNoChildren \Subscribed) "/" INBOX/gone/below
S1: * LIST (\HasNoChildren \Subscribed) "/" INBOX/kept
S1: * LIST (\NonExistent \HasNoChildren \Subscribed) "/" user/bob/lent
S1: * LIST (\NonExistent \HasNoChildren \Subscribed) "/" user/bob/lost
S1: a3 OK Completed
C1: a4 LSUB "" INBOX/%
S1: * LSUB (\Noselect) "/" INBOX/gone
S1: * LSUB () "/" INBOX/kept
S1: a4 OK Completed
"""
# who asks the backend itself: what is not there is not to be selected there
DIRECT = r"""
Cbe1= LOGIN ana secret
Cbe1: a1 LSUB "" INBOX/*
Sbe1: * LSUB (\Noselect) "/" INBOX/gone/below
Sbe1: * LSUB () "/" INBOX/kept
Sbe1: a1 OK Completed
"""


async def test_what_is_gone_is_told_as_gone(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await Player(cluster.connect).play(SCENE + DIRECT)
