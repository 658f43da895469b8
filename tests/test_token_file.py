"""What `fileexport.token_file` promises."""

from __future__ import annotations

import base64

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import ConfigurationError
from fileexport.paths import RelPath
from fileexport.token_file import MAX_FILE, MAX_LINE, MAX_LINES, parse_token_file
from fileexport.tokens import Principal, Right, generate_token, hash_token
from tests.test_tokens import KEYS, NOW, SECRET, STORED, TOKEN


def problems_of(text: str) -> tuple[str, ...]:
    """The problems that the file is refused for; none where it is accepted."""
    try:
        parse_token_file(text, "tokens")
    except ConfigurationError as error:
        return error.problems
    return ()


class FileTests(SynchronousTestCase):
    """What a token file may look like."""

    def test_every_field(self) -> None:
        """Each key of a line reaches the principal."""
        line = f"{TOKEN} secret={SECRET} under=/a/b may=read,delete name=Backup until=2027-01-31"
        found = parse_token_file(line, "tokens").find(TOKEN, NOW)
        self.assertEqual(
            found, Principal("Backup", Right.READ | Right.DELETE, RelPath(["a", "b"]), secret=SECRET)
        )

    def test_percent_encoding(self) -> None:
        """Values may be percent-encoded, and an encoded slash separates nothing."""
        line = f"{TOKEN} name=J%C3%BCrgen%20B. under=/a%20b/100%25/%FF/%23 may=read%2Cwrite".replace(
            "%2C", ","
        )
        found = parse_token_file(line, "tokens").find(TOKEN, NOW)
        assert found is not None
        self.assertEqual(found.name, "Jürgen B.")
        self.assertEqual(found.under, RelPath(["a b", "100%", "\udcff", "#"]))
        self.assertTrue(problems_of(f"{TOKEN} under=/a%2Fb"))

    def test_comments_and_blank_lines(self) -> None:
        """Comments are whole lines or come after white space; a sign inside a token is part of it."""
        text = f"# all\n\n   \n\t# more\n{TOKEN} may=read # why\r\nsome#thing#0123\tname=x\t#name=y\n#"
        table = parse_token_file(text, "tokens")
        self.assertEqual(len(table), 2)
        found = table.find("some#thing#0123", NOW)
        assert found is not None
        self.assertEqual(found.name, "x")

    def test_line_ends(self) -> None:
        """Lines may end as on Windows; the last one need not end at all."""
        table = parse_token_file(f"{TOKEN}\r\n\r\n{generate_token()} name=x\r\n{generate_token()}", "tokens")
        self.assertEqual(len(table), 3)
        self.assertIsNotNone(table.find(TOKEN, NOW))

    def test_any_token_can_be_given_in_its_stored_form(self) -> None:
        """A token that looks like a comment, a stored form or a key is accepted by its stored form."""
        for token in ("#password", "fex1:12345", "name=alice"):
            table = parse_token_file(hash_token(token), "tokens")
            self.assertIsNotNone(table.find(token, NOW))

    def test_shared_name(self) -> None:
        """Two tokens may have one name, so that one can replace the other."""
        self.assertEqual(problems_of(f"{TOKEN} name=ci\n{generate_token()} name=ci"), ())

    def test_weak_token(self) -> None:
        """A weak token is accepted, with a warning that names its line and does not show it."""
        table = parse_token_file(f"{TOKEN}\n\nhunter2hunter name=x\nletmein-please", "tokens")
        self.assertEqual(len(table), 3)
        self.assertIsNotNone(table.find("hunter2hunter", NOW))
        named, unnamed = table.warnings
        self.assertTrue(named.startswith("tokens:3: "), named)
        self.assertTrue(unnamed.startswith("tokens:4: "), unnamed)
        self.assertIn("name=", unnamed)
        for warning in table.warnings:
            self.assertNotIn("hunter2", warning)
            self.assertNotIn("letmein", warning)
            self.assertNotIn("\n", warning)

    def test_every_mistake_at_once(self) -> None:
        """Every mistake of a file is a line of one error, with the number of its line."""
        text = f"short\n{TOKEN} may=fly until=tomorrow colour=red\n# fine\n{STORED}\n{generate_token()} name="
        numbers = [problem.split(": ")[0] for problem in problems_of(text)]
        self.assertEqual(sorted(numbers), ["tokens:1", *["tokens:2"] * 3, "tokens:4", "tokens:5"])

    def test_problem_names_the_key(self) -> None:
        """A bad value is refused with the name of its key."""
        long = "x" * 65
        for field in (
            *(
                "name=",
                "name=%0A",
                "name=%FF",
                "name=\udcff",
                f"name={long}",
                "name=anonymous",
                "name=Anonymous",
            ),
            *("name=a%2", "name=a%zz", "name=\u202e"),
            *("may=", "may=all", "may=read,,write", "may=Read"),
            *("under=", "under=a", "under=.", "under=/..", "under=/a/../b", "under=/%2e%2e", "under=/a%00"),
            *(
                "under=/%",
                f"under=/{'x' * 256}",
                "under=" + "/x" * 65,
                "under=/.fileexport/x",
                "under=/\ud800",
            ),
            *("until=", "until=2027-02-29", "until=20270131", "until=2027-1-31", "until=2027-W05-1"),
            *("until=2027-01-31T00:00", "until=0000-01-01", "until=2027-13-01", "until=٢٠٢٧-01-31"),
            *(
                "secret=",
                "secret=whsec_",
                f"secret={SECRET[6:]}",
                f"secret={SECRET[:-1]}",
                f"secret={SECRET}x",
            ),
            *("secret=whsec_" + "A" * 28, "secret=whsec_" + "A" * 88, "secret=whsec_" + "_" * 32),
        ):
            with self.subTest(field=field):
                (problem,) = problems_of(f"\n{TOKEN} {field}")
                self.assertTrue(problem.startswith(f"tokens:2: {field.partition('=')[0]}= "), problem)
                self.assertNotIn("\n", problem)

    def test_secret_sizes(self) -> None:
        """A secret has 24 to 64 bytes."""
        for size, fits in ((23, False), (24, True), (25, True), (64, True), (65, False)):
            secret = "whsec_" + base64.b64encode(b"\xfb" * size).decode("ascii")
            self.assertEqual(problems_of(f"{TOKEN} secret={secret}") == (), fits)

    def test_repeated_key(self) -> None:
        """A key that is given twice is a mistake, even with the same value."""
        self.assertEqual(problems_of(f"{TOKEN} may=read may=read"), ("tokens:1: may= is given twice",))

    def test_repeated_token(self) -> None:
        """A token that is given twice, in either form, is a mistake that names both lines."""
        for first in (TOKEN, STORED):
            for second in (TOKEN, STORED):
                (problem,) = problems_of(f"{first} name=a\n#\n{second} name=b")
                self.assertTrue(problem.startswith("tokens:3: "))
                self.assertTrue(problem.endswith("line 1"))

    def test_missing_token(self) -> None:
        """A line that begins with a key has lost its token; the key is not taken for one."""
        self.assertEqual(
            problems_of("may=read,write name=x"), ("tokens:1: the token is missing: it comes first",)
        )

    def test_damaged_stored_form(self) -> None:
        """A stored form with one character less, more or spelled otherwise is refused."""
        for damaged in (
            *(STORED[:-1], STORED + "A", STORED + "=", STORED[:-1] + "d", STORED + ":", "fex1:", "fex1:::"),
            *(STORED.replace("-", "+"), STORED.replace("n-", "n-\x0b"), STORED.replace("n-", "ä-")),
        ):
            with self.subTest(damaged=damaged):
                (problem,) = problems_of(damaged)
                self.assertTrue(problem.startswith("tokens:1: the stored form is damaged"), problem)

    def test_unknown_word_is_not_shown(self) -> None:
        """A second token on a line, with or without padding, is refused and not repeated."""
        for word in ("hunter2hunter2", "aHVudGVyMmh1bnRlcjI=", "password=hunter2"):
            (problem,) = problems_of(f"{TOKEN} {word}")
            self.assertNotIn("hunter2", problem)
            self.assertNotIn(word.rstrip("="), problem)

    def test_bounds(self) -> None:
        """A file, a number of lines and a line may be as long as the bound, and no longer."""
        self.assertEqual(problems_of("\n" * MAX_LINES), ())
        self.assertEqual(len(problems_of("\n" * (MAX_LINES + 1))), 1)
        self.assertEqual(problems_of("#" * MAX_LINE), ())
        self.assertEqual(len(problems_of("#" * (MAX_LINE + 1))), 1)
        rows = ("#" * (MAX_LINE - 1) + "\n") * (MAX_FILE // MAX_LINE)
        self.assertEqual(problems_of(rows), ())
        self.assertEqual(len(problems_of(rows + "#")), 1)


#: Text that often comes near to a token file.
PIECES = st.sampled_from(
    [
        *(TOKEN, STORED, "fex1:", *KEYS, "may=read", "under=/a", "until=2027-01-31", f"secret={SECRET}"),
        *(" ", "\t", "\n", "\r\n", "#", "=", ",", "%", "%2", "/..", "\0", "\x1c"),
        *("\ud800", "\udcff", "\u2028", "\ufeff", "ä"),
    ]
)
NEARLY = st.lists(st.one_of(PIECES, st.text(max_size=10)), max_size=30).map("".join)


class HostileFileTests(SynchronousTestCase):
    """Whatever is in the file."""

    @settings(max_examples=500)
    @given(st.one_of(st.text(), NEARLY))
    def test_only_configuration_errors(self, text: str) -> None:
        """Any text is a table or a ConfigurationError whose every problem is one line with a number."""
        for problem in problems_of(text):
            self.assertRegex(problem, r"\Atokens:[0-9]+: [ -~]+\Z")

    @settings(max_examples=300)
    @given(st.lists(st.one_of(st.just("TOKEN"), PIECES, st.just(" colour=red")), max_size=12))
    def test_no_problem_shows_a_token(self, pieces: list[str]) -> None:
        """Wherever a token or a secret stands in a file, no problem and no warning repeats it."""
        tokens = [generate_token() for _ in range(3)]
        text = "".join(tokens[i % 3] if piece == "TOKEN" else piece for i, piece in enumerate(pieces))
        try:
            said = "\n".join(parse_token_file(text, "tokens").warnings)
        except ConfigurationError as error:
            said = f"{error}\n{error!r}"
            self.assertIsNone(error.__context__)
        for secret in (*tokens, TOKEN, STORED[5:], SECRET[6:]):
            self.assertNotIn(secret[5:-6], said)
