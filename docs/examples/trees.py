"""Many files at once, chosen by globs, each at its place below a directory."""

from fileexport import Client, download_files, upload_files


def publish(client: Client, site: str) -> None:
    """`site/index.html` becomes `/www/index.html`, `site/img/a/b.png` becomes `/www/img/a/b.png`."""
    upload_files(
        client,
        ["*.html", "img/**/*.png"],
        "/www",
        relative_directory=site,
        exclude_files=["draft*"],
        recursive=True,
        process_conflict="replace",
    )


def collect(client: Client, target: str, most: int) -> None:
    """`/logs/web/monday.log` becomes `target/web/monday.log`, unless it is there or has too many bytes."""
    download_files(
        client,
        "*/*.log",
        target,
        relative_directory="/logs",
        process_file=lambda path, size: size <= most,
        process_conflict="skip",
    )
