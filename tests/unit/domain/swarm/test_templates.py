"""Texts that Swarm would expand: written so that they arrive as they are, and read back."""

import pytest

from coreflow.domain.swarm.templates import literal, read_literal


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("plain", "plain"),
        ("{", "{"),
        ("{{.Node.Hostname}}", '{{"{{"}}.Node.Hostname}}'),
        ("{{{", '{{"{{"}}{'),
        ("a{{b{{c", 'a{{"{{"}}b{{"{{"}}c'),
    ],
)
def test_every_text_is_read_back(text: str, template: str) -> None:
    assert literal(text) == template
    assert read_literal(template) == text


@pytest.mark.parametrize("template", ["{{.Service.Name}}", '{{"{{"}}a{{b', '{{ "{{" }}'])
def test_a_template_of_somebody_elses_making_stands_for_no_text(template: str) -> None:
    assert read_literal(template) is None
