from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.hosts.forwarding import forwarded, recordable, shown

OWN = {"NCCL_DEBUG": "INFO", "OMP_PROC_BIND": "true", "HF_TOKEN": "abc", "HOME": "/root", "GLOO_SOCKET_IFNAME": "wg0"}


def test_variables_of_the_libraries_go_along_and_no_others() -> None:
    assert forwarded([], OWN, []) == {"NCCL_DEBUG": "INFO", "OMP_PROC_BIND": "true", "GLOO_SOCKET_IFNAME": "wg0"}


def test_what_is_asked_for_wins_over_the_file_here_over_the_one_at_home_over_the_environment(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    for folder, text in ((home, "A=home\nB=home\nC=home\nNCCL_DEBUG=WARN\n"), (here, "# mine\n\nB=here\nC=here\nHF_TOKEN\n")):
        folder.mkdir()
        (folder / ".scalelab_env").write_text(text)
    found = forwarded(["C=asked", "HOME"], OWN, [home, here])
    assert {name: found[name] for name in ("A", "B", "C", "NCCL_DEBUG", "HF_TOKEN", "HOME")} == {
        "A": "home", "B": "here", "C": "asked", "NCCL_DEBUG": "WARN", "HF_TOKEN": "abc", "HOME": "/root",
    }  # fmt: skip


def test_values_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / ".scalelab_env").write_text("A = no name\n".replace(" = ", "=x=y # ") + "B='  two words '\nC=\n")
    assert forwarded(["D=a\nb'\" $HOME"], {}, [tmp_path]) == {
        "A": "x=y # no name", "B": "  two words ", "C": "", "D": "a\nb'\" $HOME",
    }  # fmt: skip


def test_behind_a_quoted_value_may_stand_a_comment_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".scalelab_env").write_text("A=\"a b\" # it's \"mine\"\nB='#1'\nC='' #\nD='tis\n")
    assert forwarded([], {}, [tmp_path]) == {"A": "a b", "B": "#1", "C": "", "D": "'tis"}
    (tmp_path / ".scalelab_env").write_text("A=1\nB='s3cr3t'\"more\"\n")
    with pytest.raises(
        ScalelabError, match=r"\.scalelab_env:2: B: more than a # comment stands behind the closing quote"
    ) as error:
        forwarded([], {}, [tmp_path])
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RANK=1", "--env RANK: RANK is set for each rank by scalelab"),
        ("MASTER_ADDR=h1", "--master-addr and --master-port are flags"),
        ("LACKING", "--env LACKING: LACKING is not set here; give its value too, as LACKING=VALUE"),
        ("two words=1", "expected KEY=VALUE"),
        ("=1", "--env =…: the name before the = is missing; expected KEY=VALUE"),
        ("A=\0", "holds a zero byte"),
    ],
)
def test_what_can_not_go_along_is_refused(text: str, said: str) -> None:
    with pytest.raises(ScalelabError) as error:
        forwarded([text], {}, [])
    assert said in str(error.value)


def test_an_error_in_the_file_names_its_line_and_no_value(tmp_path: Path) -> None:
    (tmp_path / ".scalelab_env").write_text("A=1\nMY KEY=s3cr3t\n")
    with pytest.raises(ScalelabError, match=r"\.scalelab_env:2: expected KEY=VALUE") as error:
        forwarded([], {}, [tmp_path])
    assert "s3cr3t" not in str(error.value)


def test_secrets_are_not_shown() -> None:
    secret = (
        "HF_TOKEN", "aws_secret_access_key", "DB_PASSWORD", "WANDB_API_KEY", "GOOGLE_CREDENTIALS", "GIT_PAT", "X_AUTH",
        "PASS", "MYSQL_PASS", "DBPASS", "DB_PASS_2", "SMTP_PASSWD", "PHPSESSION", "SESSION_ID", "OAUTH", "HTTP_AUTHORIZATION",
    )  # fmt: skip
    assert set(shown(dict.fromkeys(secret, "s3cr3t")).values()) == {"****"}
    assert shown({"PROXY": "http://me:s3cr3t@proxy:3128"}) == {"PROXY": "****"}
    plain = {"NCCL_DEBUG": "INFO", "PYTHONPATH": "/a", "OMP_NUM_THREADS": "2", "URL": "http://a:80/b@c", "GIT_AUTHOR_NAME": "me"}
    assert shown(plain) == plain


def test_a_recorded_command_holds_no_value_of_the_environment() -> None:
    words = ["scalelab", "train", "--env", "A=s3cr3t", "--env=B=s3cr3t=", "--env", "C", "--model", "a=b"]
    assert recordable(words) == ["scalelab", "train", "--env", "A=****", "--env=B=****", "--env", "C", "--model", "a=b"]
