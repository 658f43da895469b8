"""What `fileexport.tokens` promises."""

from __future__ import annotations

import base64
import calendar
import hashlib
import string

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.paths import RelPath
from fileexport.token_file import parse_token_file
from fileexport.tokens import (
    ANONYMOUS_NAME,
    Principal,
    Right,
    TokenTable,
    Verifier,
    check_token,
    generate_token,
    hash_token,
    is_weak,
)

NOW = 1_800_000_000.0
#: Computed with OpenSSL's command line: HMACs with the token as key.
TOKEN = "fex1_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGBBOE3_"
STORED = (
    "fex1:n-1DmSL0s4Y:tAcLvTnYZipqm1FgNkvFluJ7cpWWDJTRmBI_umy7vnU:XH5yZf8nbrjmYGMBlB_1Vbu7pJ396WM3awoHTk7rGZc"
)
SECRET = "whsec_" + base64.b64encode(bytes(range(200, 224))).decode("ascii")
GOOD_TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=256)
#: What no token in clear can begin with in a token file.
KEYS = ("name=", "may=", "under=", "until=", "secret=")


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

    def test_owner(self) -> None:
        """Tokens of one name that see another part of the root are somebody else."""
        for under, owner in ((RelPath(), "p"), (RelPath(["a", "b c"]), "p@/a/b%20c")):
            self.assertEqual(Principal("p", Right.READ, under).owner, owner)

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

    def test_expiry(self) -> None:
        """A token is valid through the end of its last day, UTC, and not a moment longer."""
        table = parse_token_file(f"{TOKEN} until=2027-01-31", "tokens")
        midnight = calendar.timegm((2027, 2, 1, 0, 0, 0))
        self.assertIsNotNone(table.find(TOKEN, midnight - 0.001))
        self.assertIsNone(table.find(TOKEN, midnight))
        last = parse_token_file(f"{TOKEN} until=9999-12-31", "tokens")
        self.assertIsNotNone(last.find(TOKEN, NOW))

    def test_entry(self) -> None:
        """Under its id there is what the table has of a token, expired or not, and nothing else."""
        table = parse_token_file(f"{STORED} name=x until=2027-01-31", "tokens")
        entry = table.entry(Verifier.of(TOKEN).id)
        assert entry is not None
        self.assertEqual(entry.verifier.text(), STORED)
        self.assertEqual(entry.principal.name, "x")
        self.assertEqual(entry.expires, calendar.timegm((2027, 2, 1, 0, 0, 0)))
        self.assertIsNone(table.entry(bytes(8)))

    def test_entry_of_a_token(self) -> None:
        """What is kept of a token is found by the token itself, while it is good."""
        table = parse_token_file("token-of-ann-1 name=ann until=2027-01-31\n", "tokens")
        entry = table.find_entry("token-of-ann-1", 0.0)
        assert entry is not None
        self.assertEqual(entry, table.entry(entry.verifier.id))
        self.assertIsNone(table.find_entry("token-of-ann-1", entry.expires))
        self.assertIsNone(table.find_entry("token-of-bob-1", 0.0))

    def test_holders(self) -> None:
        """All tokens of one owner are found by that name, as long as they are good."""
        lines = (
            "token-of-ann-1 name=ann may=read",
            "token-of-ann-2 name=ann until=2027-01-31",
            "token-of-ann-3 name=ann under=/d",
        )
        table = parse_token_file("\n".join(lines), "tokens")
        first, second, third = (table.find(f"token-of-ann-{number}", 0.0) for number in (1, 2, 3))
        self.assertEqual(table.holders("ann", 1_801_439_999.0), [first, second])
        self.assertEqual(table.holders("ann", 1_801_440_000.0), [first])
        self.assertEqual(table.holders("ann@/d", 0.0), [third])
        self.assertEqual(table.holders("bob", 0.0), [])

    def test_table_of_one(self) -> None:
        """The table of a single token lets it do everything; what cannot be a token is a ValueError."""
        table = TokenTable.of(TOKEN, "given", "TOKEN")
        self.assertEqual(table.find(TOKEN, NOW), Principal("given", Right.ALL, RelPath()))
        self.assertEqual((len(table), table.warnings), (1, ()))
        (warning,) = TokenTable.of("hunter2hunter", "given", "TOKEN").warnings
        self.assertTrue(warning.startswith("TOKEN: "), warning)
        self.assertNotIn("hunter", warning)
        self.assertRaises(ValueError, TokenTable.of, "hunter2", "given", "TOKEN")

    def test_joined(self) -> None:
        """Two tables together have the tokens and warnings of both; the first one's word counts."""
        other = generate_token()
        first = parse_token_file(f"{TOKEN} may=read\nhunter2hunter name=x", "a")
        second = parse_token_file(f"{TOKEN} may=write\n{other}\nletmein-please name=y", "b")
        both = first.joined(second)
        self.assertEqual(len(both), 4)
        found = both.find(TOKEN, NOW)
        self.assertEqual(found and found.rights, Right.READ)
        self.assertIsNotNone(both.find(other, NOW))
        self.assertEqual([line.partition(":")[0] for line in both.warnings], ["a", "b"])
        self.assertEqual((len(first), len(second)), (2, 3))

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
