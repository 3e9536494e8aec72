"""Which call had an effect, and where: the calls of a history by their keys.

One key with one content has one effect. Whoever asked first, or again, gets its answer; a repetition says so
(`replayed`) and says where it happened (`index`) and where it was said again (`reply_index`).

    effects, echoes, doubtful = gather(history, wrong)

Pure. Contradictions between answers under one key are told to wrong(text).
"""
from check.model import content

SAID_ONCE = ("index", "reply_index", "replayed", "stock", "attempts", "http", "doubtful", "id", "ev", "t", "status")
ALPHABET = {c: n for n, c in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"


class Effect:
    """A command that was answered. called, returned: the earliest of its calls' (ns)."""
    __slots__ = ("fields", "op", "key", "content", "index", "said", "called", "returned", "calls", "position")

    def __init__(self, call, text):
        self.fields, self.op, self.key, self.content = call.fields, call.op, call.key, text
        self.index, self.said, self.calls = call.index, call.answer, [call]
        self.called, self.returned = call.t, call.t_ret
        order = self.said.get("order")
        self.position = order_position(order) if order else None

    @property
    def code(self):
        return self.said["code"]

    @property
    def ok(self):
        return self.said["code"] == "OK"

    def __str__(self):
        return str(self.calls[0])


class Echo:
    """An answer that was given again at `index`, or a key refused because it was another's."""
    __slots__ = ("call", "key", "content", "index", "reused")

    def __init__(self, call, text, reused):
        self.call, self.key, self.content, self.reused = call, call.key, text, reused
        self.index = call.index if reused else call.said("reply_index")

    def __str__(self):
        return str(self.call)


def order_number(text):
    """The id as a number; ValueError when it is none."""
    if len(text) != 13:
        raise ValueError(f"{text!r} is no order id")
    number = 0
    for c in text:
        if c not in ALPHABET:
            raise ValueError(f"{text!r} is no order id")
        number = number * 32 + ALPHABET[c]
    return number


def order_position(text):
    """(log index, position in its batch) that an order id says."""
    number = order_number(text)
    return number >> 22, number >> 10 & 0xFFF


def answer_of(call):
    """What must be the same at each repetition."""
    return {k: v for k, v in call.answer.items() if k not in SAID_ONCE}


def gather(past, wrong):
    effects, echoes, doubtful = {}, [], []
    for call in past.calls:
        if call.is_read:
            if call.status in ("ok", "refused") and (call.status == "ok") != (call.code == "OK"):
                wrong(f"status {call.status} with code {call.code}: {call}")
            continue
        if call.t_ret is None or call.status == "unknown":
            doubtful.append(call)
            continue
        if (call.status == "ok") != (call.code == "OK"):
            wrong(f"status {call.status} with code {call.code}: {call}")
        if call.index is None:
            if call.status == "ok":
                wrong(f"an answer without its log index: {call}")
            continue  # "nothing happened"
        text = content(call.fields)
        if call.code == KEY_REUSED:
            echoes.append(Echo(call, text, True))
            continue
        replayed = call.said("replayed")
        if replayed:
            echoes.append(Echo(call, text, False))
            if call.said("reply_index", 0) <= call.index:
                wrong(f"repeated before, or in the batch, it happened first: {call}")
        name = (call.key, text)
        there = effects.get(name)
        if there is None:
            effects[name] = Effect(call, text)
            if replayed:  # its own stock is not known: what it told is of later
                effects[name].said = {k: v for k, v in call.answer.items() if k not in ("stock", "replayed")}
            continue
        if answer_of(call) != answer_of(there.calls[0]):
            wrong(f"two answers under one key: {there} and {call}")
        if call.index != there.index:
            wrong(f"one key happened at two indexes: {there} and {call}")
        if not replayed:
            if any(not c.said("replayed") for c in there.calls):
                wrong(f"done twice under one key: {there} and {call}")
            there.said = call.answer
        there.calls.append(call)
        there.called, there.returned = min(there.called, call.t), min(there.returned, call.t_ret)
    return list(effects.values()), echoes, doubtful
