"""What `fileexport.tokens` promises."""

from __future__ import annotations

import base64
import calendar
import hashlib
import string

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import ConfigurationError
from fileexport.paths import RelPath
from fileexport.tokens import (
    ANONYMOUS_NAME,
    MAX_FILE,
    MAX_LINE,
    MAX_LINES,
    Principal,
    Right,
    TokenTable,
    check_token,
    generate_token,
    hash_token,
    is_weak,
    parse_token_file,
)

NOW = 1_800_000_000.0
#: Computed with OpenSSL's command line: HMACs with the token as key.
TOKEN = "fex1_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGBBOE3_"
STORED = (
    "fex1:n-1DmSL0s4Y:tAcLvTnYZipqm1FgNkvFluJ7cpWWDJTRmBI_umy7vnU:XH5yZf8nbrjmYGMBlB_1Vbu7pJ396WM3awoHTk7rGZc"
)
SECRET = "whsec_" + base64.b64encode(bytes(range(200, 224))).decode("ascii")
GOOD_TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=256)
KEYS = ("name=", "may=", "under=", "until=", "secret=")


def problems_of(text: str) -> tuple[str, ...]:
    """The problems that the file is refused for; none where it is accepted."""
    try:
        parse_token_file(text, "tokens")
    except ConfigurationError as error:
        return error.problems
    return ()


class TokenTests(SynchronousTestCase):
    """Making, checking and hashing tokens."""

    def test_generated_form(self) -> None:
        """A generated token is `fex1_`, 43 characters of base64url and 6 of checksum, always a new one."""
        tokens = {generate_token() for _ in range(100)}
        self.assertEqual(len(tokens), 100)
        for token in tokens:
            check_token(token)
            self.assertTrue(token.startswith("fex1_"))
            self.assertEqual(len(token), 5 + 43 + 6)
            self.assertLessEqual(set(token), set(string.ascii_letters + string.digits + "-_"))

    def test_checksum(self) -> None:
        """The last 6 characters are the base64url of SHA-256 of the others, as the vector has them."""
        for token in (TOKEN, generate_token()):
            digest = hashlib.sha256(token[:-6].encode("ascii")).digest()
            self.assertEqual(token[-6:], base64.urlsafe_b64encode(digest).decode("ascii")[:6])

    def test_stored_form_is_the_vector(self) -> None:
        """The stored form is what another implementation computes."""
        self.assertEqual(hash_token(TOKEN), STORED)

    def test_tokens_that_are_accepted(self) -> None:
        """8 to 256 printable ASCII characters without spaces are a token."""
        for token in ("!" * 8, "~" * 256, "pass#word", "fex1:something"):
            check_token(token)

    def test_tokens_that_are_refused(self) -> None:
        """A token that is too short, too long, or has another character is a ValueError."""
        for token in (
            "",
            "1234567",
            "x" * 257,
            "with space",
            "umlaut-ä-umlaut",
            "tab\there1",
            "nul\0here1",
            "x" * 8 + "\n",
        ):
            with self.subTest(token=token):
                self.assertRaises(ValueError, check_token, token)
                self.assertRaises(ValueError, hash_token, token)

    @given(st.text(min_size=5))
    def test_no_error_shows_the_token(self, token: str) -> None:
        """The sentence about a bad token does not repeat it."""
        try:
            check_token(token)
        except ValueError as error:
            sentence = str(error)
            # A piece of our own sentence is not a leak.
            assume(token not in "a token is 8 to 256 printable ASCII characters without spaces")
            self.assertNotIn(token, sentence)

    def test_weak(self) -> None:
        """Short tokens, words and patterns are weak."""
        for token in (
            "password",
            "Tr0ub4dor&3",
            "correct-horse-battery-staple",
            "Summer2026Vacation!Beach",
            "CorrectHorseBatteryStaple-2027",
            "a" * 256,
            "0123456789" * 25,
            "12" * 60,
            "9F86D081884C7D65",
            "x7Gq_2Lp-9Zk",
        ):
            with self.subTest(token=token):
                self.assertTrue(is_weak(token))

    def test_strong(self) -> None:
        """Generated tokens and 128 random bits in hex or base64 are not weak."""
        for token in (
            *(generate_token() for _ in range(200)),
            "9f86d081884c7d659a2feaa0c55ad015",
            "9F86D081884C7D659A2FEAA0C55AD015",
            "n4bQgYhMfWWaL-qgxVrQFQ",
            "n4bQgYhMfWWaL+qgxVrQFQ==",
        ):
            with self.subTest(token=token):
                self.assertFalse(is_weak(token))


class RightTests(SynchronousTestCase):
    """Rights and principals."""

    def test_parse(self) -> None:
        """Rights are named with commas between them; all four are `Right.ALL`."""
        self.assertEqual(Right.parse("read"), Right.READ)
        self.assertEqual(Right.parse("delete,read"), Right.READ | Right.DELETE)
        self.assertEqual(Right.parse("read,write,delete,admin"), Right.ALL)

    def test_parse_refuses(self) -> None:
        """Anything else is a ValueError."""
        for text in ("", "READ", "read,", ",read", "read write", "all", "root", "read;write"):
            with self.subTest(text=text):
                self.assertRaises(ValueError, Right.parse, text)

    def test_may(self) -> None:
        """A principal may do what they hold, and several things only where they hold all of them."""
        principal = Principal("p", Right.READ | Right.WRITE, RelPath())
        self.assertTrue(principal.may(Right.READ))
        self.assertTrue(principal.may(Right.READ | Right.WRITE))
        self.assertFalse(principal.may(Right.DELETE))
        self.assertFalse(principal.may(Right.READ | Right.ADMIN))
        self.assertFalse(Principal.anonymous(Right(0)).may(Right.READ))

    def test_anonymous(self) -> None:
        """Whoever comes without a token has a name of their own and sees no hidden names unless told so."""
        nobody = Principal.anonymous(Right.READ)
        self.assertTrue(nobody.is_anonymous)
        self.assertEqual((nobody.name, nobody.under, nobody.sees_hidden), (ANONYMOUS_NAME, RelPath(), False))
        self.assertTrue(Principal.anonymous(Right.READ, RelPath(["a"]), sees_hidden=True).sees_hidden)
        self.assertFalse(Principal("p", Right.READ, RelPath()).is_anonymous)

    def test_repr_hides_the_secret(self) -> None:
        """The repr of a principal never shows the secret, which still counts when two are compared."""
        principal = Principal("p", Right.READ, RelPath(), secret=SECRET)
        self.assertNotIn(SECRET[6:], repr(principal))
        self.assertNotEqual(principal, Principal("p", Right.READ, RelPath()))
        self.assertEqual(principal, Principal("p", Right.READ, RelPath(), secret=SECRET))


class FindTests(SynchronousTestCase):
    """Who a token belongs to."""

    def test_nobody(self) -> None:
        """An empty table, and an empty file, know no token."""
        for table in (TokenTable(), parse_token_file("", "tokens")):
            self.assertEqual(len(table), 0)
            self.assertIsNone(table.find(TOKEN, NOW))

    def test_defaults(self) -> None:
        """A token alone may do everything, everywhere, for ever, and is named by its id."""
        expected = Principal("token-9fed439922f4b386", Right.ALL, RelPath(), sees_hidden=True, secret=None)
        for line in (TOKEN, STORED):
            table = parse_token_file(line, "tokens")
            self.assertEqual(table.find(TOKEN, NOW), expected)
            self.assertEqual(table.find(TOKEN, 1e12), expected)
            self.assertEqual(table.warnings, ())

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

    def test_expiry(self) -> None:
        """A token is valid through the end of its last day, UTC, and not a moment longer."""
        table = parse_token_file(f"{TOKEN} until=2027-01-31", "tokens")
        midnight = calendar.timegm((2027, 2, 1, 0, 0, 0))
        self.assertIsNotNone(table.find(TOKEN, midnight - 0.001))
        self.assertIsNone(table.find(TOKEN, midnight))
        last = parse_token_file(f"{TOKEN} until=9999-12-31", "tokens")
        self.assertIsNotNone(last.find(TOKEN, NOW))

    def test_one_among_many(self) -> None:
        """Each token of a file finds its own principal."""
        tokens = [generate_token() for _ in range(50)]
        table = parse_token_file("".join(f"{t} name=n{i}\n" for i, t in enumerate(tokens)), "tokens")
        self.assertEqual(len(table), 50)
        for index, token in enumerate(tokens):
            found = table.find(token, NOW)
            assert found is not None
            self.assertEqual(found.name, f"n{index}")
        self.assertIsNone(table.find(generate_token(), NOW))

    @given(GOOD_TOKENS)
    def test_stored_form_finds_the_same_principal(self, token: str) -> None:
        """A line with the stored form stands for the same principal as a line with the token."""
        assume(not token.startswith(("#", "fex1:", *KEYS)))
        clear = parse_token_file(f"{token} may=read", "tokens").find(token, NOW)
        stored = parse_token_file(f"{hash_token(token)} may=read", "tokens").find(token, NOW)
        self.assertIsNotNone(clear)
        self.assertEqual(clear, stored)

    @given(GOOD_TOKENS)
    def test_stored_form_is_no_login(self, token: str) -> None:
        """Whoever reads the stored form cannot log in with it, nor with a part of it."""
        stored = hash_token(token)
        table = parse_token_file(stored, "tokens")
        self.assertIsNotNone(table.find(token, NOW))
        for guess in (stored, stored[5:], *stored.split(":"), stored.replace(":", "_")):
            self.assertIsNone(table.find(guess, NOW))

    def test_id_alone_is_no_login(self) -> None:
        """A token whose id is known but whose StoredKey is another's finds nobody."""
        forged = ":".join(STORED.split(":")[:2] + hash_token(generate_token()).split(":")[2:])
        self.assertIsNone(parse_token_file(forged, "tokens").find(TOKEN, NOW))

    @given(GOOD_TOKENS, st.text(max_size=300))
    def test_another_string_finds_nobody(self, token: str, guess: str) -> None:
        """Any other string, whatever it holds, finds nobody and raises nothing."""
        assume(guess != token)
        table = parse_token_file(hash_token(token), "tokens")
        for attempt in (
            guess,
            token + "\0",
            token[:-1],
            token + token[-1],
            token.swapcase() + "x",
            token + guess,
        ):
            if attempt != token:
                self.assertIsNone(table.find(attempt, NOW))


class FileTests(SynchronousTestCase):
    """What a token file may look like."""

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
