"""What scripts want sent is sent: from the rows that deliveries have put down, to the server of `[backend.submission]`.

One process of a backend does it. A row is marked sent behind the server's word: where a crash comes between, that mail is
sent a second time, which no sender can exclude (RFC 1047). What the server refuses for good is given up, all else is tried
again, later each time.
"""

import asyncio
import smtplib
import ssl
import time
from collections.abc import Sequence
from typing import Final

from murder.config import Config
from murder.config.sections import SubmissionConfig
from murder.log import logger
from murder.roles.backend.records.deliveries import Deliveries, Mail
from murder.roles.backend.scripts.worklist import Worklist

LATEST_S: Final = 4 * 3600.0


class Refused(Exception):
    """For good."""


class Submitter:
    """See the module."""

    def __init__(self, deliveries: Deliveries, config: Config) -> None:
        self._deliveries = deliveries
        self.config = config
        self._log = logger(role="backend")
        self.rows = Worklist(self._due, self._send, self._failed)

    async def _due(self, most: int) -> Sequence[Mail]:
        return await self._deliveries.due(most) if self.config.submission.server else ()

    def _failed(self, error: Exception) -> None:
        self._log.error("outgoing.deferred", user="", to=[], problem="", exc_info=error)

    async def _send(self, mail: Mail) -> None:
        config = self.config.submission
        facts = {"user": mail.user, "to": list(mail.recipients)}
        try:
            await asyncio.to_thread(submit, config, self.config.node.name, mail)
        except Refused as refused:
            await self._give_up(mail, str(refused))
        except (OSError, smtplib.SMTPException) as error:
            problem = str(error) or type(error).__name__
            if time.time() - mail.at > config.give_up_s:
                await self._give_up(mail, problem)
                return
            wait_s = min(LATEST_S, config.retry_s * 2 ** min(mail.tries, 20))
            await self._deliveries.later(mail, wait_s, problem)
            self._log.warning("outgoing.deferred", **facts, problem=problem)
        else:
            await self._deliveries.sent(mail)
            self._log.info("outgoing.sent", **facts, octets=len(mail.octets))

    async def _give_up(self, mail: Mail, problem: str) -> None:
        await self._deliveries.failed(mail, problem)
        self._log.warning(
            "outgoing.failed", user=mail.user, to=list(mail.recipients), problem=problem
        )


def submit(config: SubmissionConfig, own_name: str, mail: Mail) -> None:
    """In a thread, to its end. Raises Refused, OSError, smtplib.SMTPException."""
    server = config.server
    assert server is not None
    context = ssl.create_default_context(cafile=str(config.ca) if config.ca else None)
    with _connected(config, own_name, context) as client:
        if config.tls == "starttls":
            client._host = config.tls_name or server.host  # type: ignore[attr-defined] # the name it checks
            client.starttls(context=context)
        client.ehlo_or_helo_if_needed()
        if config.user:
            client.login(config.user, config.password)
        # of LMTP's answers, one for each recipient, smtplib reads the first
        groups = (
            [[to] for to in mail.recipients]
            if config.protocol == "lmtp"
            else [list(mail.recipients)]
        )
        for group in groups:
            _transaction(client, mail, group)


def _connected(config: SubmissionConfig, own_name: str, context: ssl.SSLContext) -> smtplib.SMTP:
    server = config.server
    assert server is not None
    if config.protocol == "lmtp":
        return smtplib.LMTP(server.host, server.port, own_name, timeout=config.timeout_s)
    if config.tls == "implicit":
        return smtplib.SMTP_SSL(
            server.host, server.port, own_name, timeout=config.timeout_s, context=context
        )
    return smtplib.SMTP(server.host, server.port, own_name, timeout=config.timeout_s)


def _transaction(client: smtplib.SMTP, mail: Mail, recipients: list[str]) -> None:
    addresses = (mail.sender, *recipients)
    if any(letter < " " or letter in "<>\x7f" for address in addresses for letter in address):
        raise Refused("an address has characters that no address has")
    options = []
    if not all(address.isascii() for address in addresses):
        if not client.has_extn("smtputf8"):
            raise Refused("the server takes no addresses in UTF-8 (SMTPUTF8)")
        options.append("SMTPUTF8")
    if client.has_extn("8bitmime"):
        options.append("BODY=8BITMIME")
    try:
        client.sendmail(mail.sender, recipients, mail.octets, mail_options=options)
    except smtplib.SMTPRecipientsRefused as refused:
        codes = [code for code, _ in refused.recipients.values()]
        if all(code >= 500 for code in codes):
            raise Refused(str(refused.recipients)) from refused
        raise
    except UnicodeError as error:
        raise Refused("an address is no text") from error
    except smtplib.SMTPResponseException as answer:
        if answer.smtp_code >= 500:
            raise Refused(f"{answer.smtp_code} {answer.smtp_error!r}") from answer
        raise
