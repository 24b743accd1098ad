"""Answers of models that think, refuse, or want to be asked otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

from caption.chat_server import Answer, ChatServer, completion
from supir.caption.endpoint import EndpointCaptioner
from supir.caption.words import ROOM_TO_THINK, caption_in, has_thoughts, spoken
from supir.errors import CaptionerError, CaptionError

PICTURE = Image.new("RGB", (40, 30), (90, 120, 30))


def captioner(server: ChatServer) -> EndpointCaptioner:
    return EndpointCaptioner(url=server.url, model="seer", sleep=lambda seconds: None)


def ended(text: object, reason: str = "stop", **message: Any) -> Answer:
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
    return Answer(body=json.dumps({"choices": [choice]}).encode())


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("<think>\nThe user wants a caption.\n</think>\n\nA red door.", "A red door."),
        ("Okay, a door, then.\n</think>\nA red door.", "A red door."),
        ("<Thinking>door?</Thinking><think>yes</think>A red door.", "A red door."),
        ("[THINK]a door[/THINK]A red door.", "A red door."),
        ("◁think▷a door◁/think▷A red door.", "A red door."),
        ("<|channel|>analysis<|message|>door<|end|><|start|>assistant<|channel|>final<|message|>A red door.<|return|>",
         "A red door."),
        ("<think>hm</think><answer>A red door.</answer>", "A red door."),
        ("<think>hm</think><|begin_of_box|>A red door.<|end_of_box|>", "A red door."),
        ("<think>The user wants", ""),
        ("<|channel|>analysis<|message|>The user", ""),
        ("A man thinks <b>hard</b> about reason.", "A man thinks b hard /b about reason."),
    ],
)  # fmt: skip
def test_thoughts_are_no_caption(answer: str, caption: str) -> None:
    assert caption_in(answer, "seer") == caption
    assert has_thoughts(answer) == (answer != "A man thinks <b>hard</b> about reason.")
    assert "user" not in spoken(answer)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I\u2019m unable to describe people in images.",
        "Sorry, I cannot help with identifying people.",
        "As an AI language model, I do not see pictures.",
        "I don't see an image attached.",
        "<think>may I?</think>I can\u2019t help with that.",
    ],
)
def test_a_refusal_is_no_caption(server: ChatServer, text: str) -> None:
    server.script = [Answer(body=completion(text))]
    with pytest.raises(CaptionError, match=r"refuses to describe the picture\. It says: ") as caught:
        captioner(server)(PICTURE)
    assert not isinstance(caught.value, CaptionerError), "another picture may do"


@pytest.mark.parametrize("text", ["A sorry sight: a ruined house.", "I. M. Pei's pyramid at night.", "An iced lake."])
def test_what_only_sounds_so_is_a_caption(text: str) -> None:
    assert caption_in(text, "seer") == text


def test_refusals_that_are_said_apart(server: ChatServer) -> None:
    server.script = [ended(None, refusal="It shows a person."), ended("", "content_filter")]
    with pytest.raises(CaptionError, match="It says: It shows a person"):
        captioner(server)(PICTURE)
    with pytest.raises(CaptionError, match="a filter of the server"):
        captioner(server)(PICTURE)


@pytest.mark.parametrize(
    "first",
    [ended("<think>The user", "length"), ended("", "length", reasoning_content="The user"), ended(None, "length")],
    ids=["in the answer", "apart", "hidden"],
)
def test_a_model_that_thinks_gets_room_for_it_once_it_is_known(server: ChatServer, first: Answer) -> None:
    asked = captioner(server)
    server.script = [first, ended("<think>The user</think>A red door."), ended("A blue door.")]
    assert [asked(PICTURE), asked(PICTURE)] == ["A red door.", "A blue door."]
    assert [request["max_tokens"] for request in server.asked] == [77, ROOM_TO_THINK, ROOM_TO_THINK]
    server.script = [ended("<think>The user", "length")]
    with pytest.raises(
        CaptionError, match=f"come to no caption within {ROOM_TO_THINK} tokens; switch its thinking off"
    ):
        asked(PICTURE)


def test_thoughts_and_nothing_else(server: ChatServer) -> None:
    server.script = [ended("", reasoning="The user")]
    with pytest.raises(CaptionError, match="has thought and come to no caption; switch"):
        captioner(server)(PICTURE)
    assert len(server.asked) == 1


def test_parameters_that_a_server_does_not_take(server: ChatServer) -> None:
    asked = captioner(server)
    limit = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    heat = "Unsupported value: 'temperature' does not support 0 with this model."
    server.script = [Answer(400, json.dumps({"error": {"message": text}}).encode()) for text in (limit, heat)]
    assert asked(PICTURE).startswith("A photo")
    assert asked(PICTURE).startswith("A photo")
    sent = [{"max_tokens", "max_completion_tokens", "temperature"} & set(request) for request in server.asked]
    assert sent == [
        {"max_tokens", "temperature"}, {"max_completion_tokens", "temperature"},
        {"max_completion_tokens"}, {"max_completion_tokens"},
    ]  # fmt: skip
    assert server.asked[-1]["max_completion_tokens"] == 77
    other = captioner(server)
    server.script = [Answer(422, b'{"detail": "extra fields not permitted: max_tokens"}')]
    assert other(PICTURE).startswith("A photo")
    assert "max_tokens" not in server.asked[-1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            Answer(400, b'{"error": {"message": "no pictures here", "code": 7}}'),
            "answers 400. It says: no pictures here",
        ),
        (Answer(400, b'{"error": "no pictures here"}'), "It says: no pictures here"),
        (Answer(400, b'{"detail": "no pictures here"}'), "It says: no pictures here"),
        (Answer(400, b"no pictures here"), "It says: no pictures here"),
        (Answer(200, b'{"error": {"message": "no pictures here"}}'), "with an error. It says: no pictures here"),
        (Answer(400, b'{"error": {"message": "max_completion_tokens"}}'), "It says: max_completion_tokens"),
    ],
)
def test_what_the_server_says_is_shown(server: ChatServer, answer: Answer, said: str) -> None:
    server.script = [answer] * 9
    with pytest.raises(CaptionError) as caught:
        captioner(server)(PICTURE)
    assert str(caught.value).endswith(said)
    assert len(server.asked) <= 2, "a server that repeats itself is not asked for ever"
