"""Names that deceive, break or surprise, for whatever shows or sends a name."""

from fileexport.paths import MAX_NAME

ODD_NAMES = (
    *("plain.txt", "with space", " leading", "trailing ", "\ttab\t", "two\nlines", "cr\r\nX-Evil: 1"),
    *("\x01\x1b[31m\x7f", "\x85next\u2028line", 'dou"ble', "sin'gle", "back`tick", "C:\\temp"),
    *("<script>alert(1)", "<img src=x onerror=alert(1)>", '"><h1>x', '" onmouseover="alert(1)', "<!--"),
    *("&amp;", "&#60;b&#62;", "{{ 7*7 }}", "{% raw %}", "100%", "%2e%2e%2fetc", "%00", "%2F", "%2E%2E"),
    *("a#b", "a?b=c", "?json", "#", "a&b;c", "a+b", "javascript:alert(1)", "data:text&html,x", "http:", "C:"),
    *("\\\\host\\share", "..hidden", "...", ".env", "-", "list", "get", "favicon.ico", "~root", "*", ";"),
    *("é", "e\u0301", "été 2026", "צילומים", "日本語", "👩‍👩‍👧.png", "invoice\u202etxt.exe"),
    *("a\u2066b\u2069", "zero\u200bwidth\ufeff", "caf\udce9", "\udcff\udcfe", "\udce2\udc82", "\ufffd"),
    *("\ud7ff\ue000\U0010ffff", "x" * MAX_NAME, "%" * MAX_NAME, "\udcff" * MAX_NAME, "@"),
)
