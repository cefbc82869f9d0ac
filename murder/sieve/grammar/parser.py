"""Commands of a script: RFC 5228 §8.2, with what goes on behind an error, so that several are told at once."""

from typing import Final

from murder.sieve.grammar.source import Source
from murder.sieve.grammar.tokens import Kind, Tokens
from murder.sieve.grammar.tree import Argument, Node, Number, String, StringList, Tag
from murder.sieve.limits import Limits

# How far up the grammar a mark stands: who looks for one stops at a higher one.
_RANKS: Final = {
    Kind.LIST: 0,
    Kind.LIST_END: 0,
    Kind.TESTS: 1,
    Kind.TESTS_END: 1,
    Kind.SEMICOLON: 2,
    Kind.BLOCK: 3,
    Kind.BLOCK_END: 3,
}
_BEGINS: Final = {Kind.LIST_END: Kind.LIST, Kind.TESTS_END: Kind.TESTS, Kind.BLOCK_END: Kind.BLOCK}


def parse_script(source: Source, limits: Limits) -> list[Node]:
    """All commands. What is wrong is reported to `source`; then the tree has holes."""
    return _Parser(source, limits).script()


class _Lost(Exception):
    """Something was reported; go on behind the next end of whatever is around."""


class _Parser:
    __slots__ = ("_count", "_limits", "_source", "_tokens")

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._tokens = Tokens(source, limits)
        self._count = 0  # of commands and tests

    def script(self) -> list[Node]:
        """start = commands"""
        commands, is_sound = self._commands(1)
        if is_sound and self._tokens.kind is not Kind.END:
            self._report(
                f"unexpected {self._tokens.kind.shown} found at (the presumed) end of file"
            )
        return commands

    def _report(self, what: str) -> None:
        if self._tokens.kind is not Kind.BROKEN:
            self._source.report(self._tokens.at, what)

    def _go_to(self, end: Kind) -> bool:
        """Make this the current token, on this level; False where something around it ends before."""
        tokens = self._tokens
        rank = _RANKS[end]
        depth = 1
        while tokens.kind is not Kind.END and _RANKS.get(tokens.kind, -1) <= rank:
            if tokens.kind is _BEGINS.get(end):
                depth += 1
            elif tokens.kind is end:
                depth -= 1
                if not depth:
                    return True
            tokens.skip()
        return end is Kind.SEMICOLON and tokens.kind is Kind.BLOCK

    def _commands(self, depth: int) -> tuple[list[Node], bool]:
        """commands = *command; whether it is known what comes behind them."""
        commands: list[Node] = []
        while self._tokens.kind is Kind.WORD and not self._source.is_full:
            try:
                command = self._node()
            except _Lost:
                return commands, False
            commands.append(command)
            if not self._end_of_command(command) or not self._body(command, depth):
                return commands, False
        return commands, not self._source.is_full

    def _end_of_command(self, command: Node) -> bool:
        """command = identifier arguments (";" / block), up to the last of these."""
        tokens = self._tokens
        try:
            self._arguments(command, 1)
            if tokens.kind in (Kind.SEMICOLON, Kind.BLOCK):
                return True
            self._report(
                "expected end of command ';' or the beginning of a compound block '{', "
                f"but found {tokens.kind.shown}"
            )
        except _Lost:
            pass
        return self._go_to(Kind.SEMICOLON)

    def _body(self, command: Node, depth: int) -> bool:
        """block = "{" commands "}" """
        tokens = self._tokens
        begin = tokens.kind
        tokens.skip()
        if begin is Kind.SEMICOLON:
            return True
        if depth >= self._limits.blocks:
            limit = self._limits.blocks
            self._report(f"cannot nest command blocks deeper than {limit} levels")
            is_found = self._go_to(Kind.BLOCK_END)
            if is_found:
                tokens.skip()
            return is_found
        command.block, is_sound = self._commands(depth + 1)
        if is_sound and tokens.kind is not Kind.BLOCK_END:
            self._report(f"expected end of compound block '}}', but found {tokens.kind.shown}")
            return self._go_to(Kind.BLOCK_END) and self._skipped()
        if not is_sound and not self._go_to(Kind.BLOCK_END):
            return False
        return self._skipped()

    def _skipped(self) -> bool:
        self._tokens.skip()
        return True

    def _node(self) -> Node:
        node = Node(self._tokens.text, self._tokens.at)
        self._count += 1
        if self._count > self._limits.commands:
            self._report(f"the script has more than {self._limits.commands} commands and tests")
            self._source.is_full = True
            raise _Lost
        self._tokens.skip()
        return node

    def _arguments(self, node: Node, depth: int) -> None:
        """arguments = *argument [ test / test-list ]. Raises _Lost."""
        while (argument := self._argument()) is not None:
            node.arguments.append(argument)
            if len(node.arguments) > self._limits.arguments:
                self._report(f"too many arguments for command '{node.name}'")
                raise _Lost
        if self._tokens.kind is Kind.WORD:
            self._check_depth(depth)
            node.tests.append(self._test(depth))
        elif self._tokens.kind is Kind.TESTS:
            self._tokens.skip()
            node.tests_listed = True
            self._test_list(node, depth)

    def _check_depth(self, depth: int) -> None:
        if depth >= self._limits.tests:
            self._report(f"cannot nest tests deeper than {self._limits.tests} levels")
            raise _Lost

    def _test(self, depth: int) -> Node:
        """test = identifier arguments"""
        test = self._node()
        self._arguments(test, depth + 1)
        return test

    def _test_list(self, node: Node, depth: int) -> None:
        """test-list = "(" test *("," test) ")", behind its begin"""
        tokens = self._tokens
        try:
            self._check_depth(depth)
            behind = "("
            while True:
                if tokens.kind is not Kind.WORD:
                    self._report(
                        f"expecting test identifier after '{behind}' in test list, "
                        f"but found {tokens.kind.shown}"
                    )
                    raise _Lost
                node.tests.append(self._test(depth))
                if not self._comma():
                    break
                behind = ","
        except _Lost:
            if not self._go_to(Kind.TESTS_END):
                raise
        if tokens.kind is not Kind.TESTS_END:
            token_text = tokens.kind.shown
            self._report(f"expecting ',' or end of test list ')', but found {token_text}")
            if not self._go_to(Kind.TESTS_END):
                raise _Lost
        tokens.skip()

    def _is_comma(self) -> bool:
        return self._tokens.kind is Kind.COMMA

    def _comma(self) -> bool:
        """Go behind one, if it is the current token."""
        return self._is_comma() and self._skipped()

    def _argument(self) -> Argument | None:
        """argument = string-list / number / tag"""
        tokens = self._tokens
        at = tokens.at
        argument: Argument
        match tokens.kind:
            case Kind.TAG:
                argument = Tag(tokens.text, at)
            case Kind.NUMBER:
                argument = Number(tokens.number, at)
            case Kind.STRING:
                argument = String(tokens.text, at)
            case Kind.LIST:
                return self._string_list()
            case _:
                return None
        tokens.skip()
        return argument

    def _string_list(self) -> Argument:
        """string-list = "[" string *("," string) "]" """
        tokens = self._tokens
        at = tokens.at
        strings: list[String] = []
        behind = "["
        while behind:
            tokens.skip()
            if tokens.kind is not Kind.STRING:
                self._report(
                    f"expecting string after '{behind}' in string list, but found {tokens.kind.shown}"
                )
                break
            strings.append(String(tokens.text, tokens.at))
            if len(strings) > self._limits.list_strings:
                self._report("failed to accept more items in string list")
                break
            tokens.skip()
            behind = "," if self._is_comma() else ""
        if not behind and tokens.kind is not Kind.LIST_END:
            self._report(f"expecting ',' or end of string list ']', but found {tokens.kind.shown}")
        if not self._go_to(Kind.LIST_END):
            raise _Lost
        tokens.skip()
        return StringList(tuple(strings), at)
