"""The limits of what comes from outside: every number in one table.

What is larger is refused by a typed error that names the file or argument, what was found, and the
limit. Each number is several times the largest that models in use have.

====================== ============ ==========================================================
name                   limit        of what
====================== ============ ==========================================================
`PREFIX`               16,384       characters of a query or document prefix, or of a prompt
`STAMP_TEXT`           4,096        characters of any other text in a collection's stamp
`JSON_FILE`            16 MB        a config, manifest or record
`JSON_DEPTH`           64           levels of lists and objects in any JSON of a model
`MODULES`              100          modules that ``modules.json`` chains
`TOKENIZER_FILE`       128 MB       ``tokenizer.json``
`TOKEN_IDS`            4,194,304    token ids, of which each is below this
`ADDED_TOKENS`         20,000       tokens that a tokenizer adds to its vocabulary
`ADDED_TOKEN`          1,000        characters of one of them
`TOKENIZER_STEPS`      64           steps of a normaliser, a pre-tokeniser or a post-processor
`TOKENIZER_PATTERN`    10,000       characters of a regular expression
`TOKENIZER_GROWTH`     64           times that a normaliser may lengthen a text
`TOKENIZER_PREPENDED`  1,000        characters that a normaliser may put before a text
`SPECIAL_TOKENS`       256          special tokens around a text
`TORCH_DIRECTORY`      1 MB         the directory of parts of a PyTorch file
`TORCH_PICKLE`         1 MB         the description of its tensors
`TORCH_TENSORS`        4,000        its tensors, and its parts
`TORCH_STACK`          10,000       values of its description that wait for each other
`TENSOR_AXES`          8            sizes of one of its tensors
`HUB_ANSWER`           32 MB        a hub's answer about a repository
`HUB_ANSWER_SECONDS`   300 s        until that answer is complete
`UNSTATED_FILE`        8 GB         a file whose size the hub does not state
`FIRST_BYTE`           60 s         from a request to a hub until its answer begins
`TRIAL_SECONDS`        60 s         the first run of a graph that was not compiled here, in a child
`TRIAL_MEMORY`         8 GB         memory of that process, besides four times the file's size
`PAYLOAD_DEPTH`        200          levels of lists and objects in a payload
`CHUNK_GAP`            16 MB        characters of a document that are in none of its chunks
`SERVICE_BODY`         8 MB         the body of a request to a service, unless it is told another
`SERVICE_BODIES`       128 MB       the bodies of all requests that are in
`SERVICE_TEXTS`        2,048        texts, documents or ids of one request
`SERVICE_TEXT`         1,048,576    characters of one of its texts
`SERVICE_QUERY`        100,000      characters of a query
`SERVICE_FILTER`       10,000       values of a query's filter, keys and lists included
`SERVICE_WAITING`      8,192        texts of all requests that wait or are worked on
`SERVICE_CHARACTERS`   67,108,864   their characters
`SERVICE_HITS`         1,000        hits of one query
`SERVICE_REACH`        10,000       rank of the last hit
`SERVICE_CONNECTIONS`  2,048        connections to a service
`SERVICE_HEADERS`      15 s         until a request's headers have arrived
`SERVICE_UPLOAD`       30 s         until its body has arrived
`SERVICE_READING`      60 s         until a client has read an answer that waits for it
`ERROR_MESSAGE`        4,000        characters of an error's message; the middle is left out
====================== ============ ==========================================================
"""

from __future__ import annotations

PREFIX = 1 << 14
STAMP_TEXT = 4_096
JSON_FILE = 16 << 20
JSON_DEPTH = 64
MODULES = 100
TOKENIZER_FILE = 128 << 20
TOKEN_IDS = 1 << 22
ADDED_TOKENS = 20_000
ADDED_TOKEN = 1_000
TOKENIZER_STEPS = 64
TOKENIZER_PATTERN = 10_000
TOKENIZER_GROWTH = 64
TOKENIZER_PREPENDED = 1_000
SPECIAL_TOKENS = 256
TORCH_DIRECTORY = 1 << 20
TORCH_PICKLE = 1 << 20
TORCH_TENSORS = 4_000
TORCH_STACK = 10_000
TENSOR_AXES = 8
HUB_ANSWER = 32 << 20
HUB_ANSWER_SECONDS = 300.0
UNSTATED_FILE = 8 << 30
FIRST_BYTE = 60.0
TRIAL_SECONDS = 60.0
TRIAL_MEMORY = 8 << 30
PAYLOAD_DEPTH = 200
CHUNK_GAP = 16 << 20
SERVICE_BODY = 8 << 20
SERVICE_BODIES = 128 << 20
SERVICE_TEXTS = 2_048
SERVICE_TEXT = 1 << 20
SERVICE_QUERY = 100_000
SERVICE_FILTER = 10_000
SERVICE_WAITING = 8_192
SERVICE_CHARACTERS = 64 << 20
SERVICE_HITS = 1_000
SERVICE_REACH = 10_000
SERVICE_CONNECTIONS = 2_048
SERVICE_HEADERS = 15.0
SERVICE_UPLOAD = 30.0
SERVICE_READING = 60.0
ERROR_MESSAGE = 4_000


def shortened(message: str, longest: int = ERROR_MESSAGE) -> str:
    """Return `message` with its middle left out, if it is longer than `longest` characters."""
    if len(message) <= longest:
        return message
    left_out = f" ... ({len(message):,} characters in all) ... "
    end = longest // 4
    return f"{message[: longest - end - len(left_out)]}{left_out}{message[-end:]}"
