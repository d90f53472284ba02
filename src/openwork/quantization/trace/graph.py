"""The graph of one module's own forward, traced on example arguments with its children as leaves.

Unlike plain symbolic tracing every operation is also run, so control flow over shapes, `None` arguments and
unpacking work as in eager mode. What the trace took as fixed (a flag, the truth of a condition, a loop's
length) is written into the graph as a check, so that a later call that would have gone another way fails
with a sentence instead of computing something else.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import Attribute

from openwork.quantization.trace.arguments import Arguments, holds_tensor, is_constant


class TraceRefused(Exception):
    """Why a module's forward cannot be written down as a graph, as the end of a sentence."""


def expect(value: Any, recorded: Any, where: str) -> None:
    """Raise ValueError unless `value` is what the trace recorded; `where` names it."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return
    same = bool(value) == recorded if isinstance(recorded, bool) else value == recorded
    if not same:
        raise ValueError(
            f"{where} was {recorded!r} in the example that the model was prepared with, and its quantizers "
            f"are placed for that; now it is {value!r}. Prepare the model with an example that takes this "
            "way."
        )


TYPES = ("dtype", "device")
"""Attributes that functions such as torch.finfo take only as what they are."""


class _Concrete(fx.Proxy):
    """A proxy whose value on the example is known to its tracer."""

    def __getattr__(self, k: str) -> Any:
        attribute = _ConcreteAttribute(self, k)
        return _tracer(self).fixed(attribute) if _tracer(self).rigid and k in TYPES else attribute

    def __len__(self) -> int:
        length: Any = self.tracer.create_proxy("call_function", len, (self,), {})
        return int(length)

    def __int__(self) -> int:
        return int(_tracer(self).fixed(self))

    def __index__(self) -> int:
        return int(_tracer(self).fixed(self))

    def __float__(self) -> float:
        return float(_tracer(self).fixed(self))


class _ConcreteAttribute(_Concrete, Attribute):
    def __init__(self, root: fx.Proxy, attr: str) -> None:
        Attribute.__init__(self, root, attr)


def _tracer(proxy: fx.Proxy) -> ConcreteTracer:
    assert isinstance(proxy.tracer, ConcreteTracer)
    return proxy.tracer


class ConcreteTracer(fx.Tracer):
    """Traces the forward of one module on example arguments; every child module is a leaf.

    name: the module, for the checks' messages. rigid: take the types of tensors as fixed too. values: what
    each node gave on the example.
    """

    def __init__(self, name: str, arguments: Arguments, rigid: bool) -> None:
        super().__init__()
        self.rigid = rigid
        self.name, self.arguments = name or "the model", arguments
        self.values: dict[fx.Node, Any] = {}
        self.proxy_buffer_attributes = True
        self._running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._running:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Concrete(node, self)

    def create_proxy(
        self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *rest: Any, **more: Any
    ) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        if kind == "placeholder":
            return proxy
        value = self._evaluate(proxy.node)
        self.values[proxy.node] = value
        if value is None and target is operator.getitem:
            self._check(proxy, None)
            return None
        return proxy

    def fixed(self, proxy: fx.Proxy) -> Any:
        """The value of a proxy as a plain number, which the graph then checks."""
        value = self.values[proxy.node]
        value = value.item() if isinstance(value, Tensor) else value
        self._check(proxy, value)
        return value

    def to_bool(self, obj: fx.Proxy) -> bool:
        value = bool(self.values[obj.node])
        self._check(obj, value)
        return value

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        items: Any = obj
        return iter([items[i] for i in range(len(items))])

    def keys(self, obj: fx.Proxy) -> Any:
        return self.values[obj.node].keys()

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """Placeholders for the parameters of `forward`, as the example binds them."""
        positional, keywords = self._placeholders(root_fn)
        return (lambda: root_fn(self.root, *positional, **keywords)), []

    def _placeholders(self, root_fn: Any) -> tuple[list[Any], dict[str, Any]]:
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        optional = False
        for parameter, value in self.arguments.bound(self.root, root_fn):
            default = parameter.default
            optional = optional or default is not inspect.Parameter.empty
            fallback = (None if default is inspect.Parameter.empty else default,) if optional else ()
            given = self._placeholder(parameter.name, value, fallback)
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                keywords[parameter.name] = given
            else:
                positional.append(given)
        return positional, keywords

    def _placeholder(self, name: str, value: Any, default: tuple[Any, ...]) -> Any:
        if not holds_tensor(value) and not is_constant(value):
            raise TraceRefused(f"its argument {name!r} is a {type(value).__name__}, which cannot be traced")
        if default and not is_constant(default[0]):
            raise TraceRefused(
                f"the default of its argument {name!r} is a {type(default[0]).__name__}, which cannot be "
                "traced"
            )
        proxy = self.create_proxy("placeholder", name, default, {})
        self.values[proxy.node] = value
        if holds_tensor(value):
            return proxy
        self._check(proxy, value, f"the argument {name!r} of {self.name}")
        return value

    def _check(self, proxy: fx.Proxy, value: Any, what: str = "") -> None:
        where = what or f"a condition or a size in the forward of {self.name} ({proxy.node})"
        node = self.create_node("call_function", expect, (proxy.node, value, where), {})
        self.values[node] = None

    def _evaluate(self, node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values_of(n))
        self._running = True
        try:
            return self._run(node, args, kwargs)
        finally:
            self._running = False

    def values_of(self, node: fx.Node) -> Any:
        """What a node gave; parameters and buffers are looked up."""
        if node not in self.values and node.op == "get_attr":
            self.values[node] = operator.attrgetter(str(node.target))(self.root)
        return self.values[node]

    def _run(self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.root)
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def trace(module: nn.Module, name: str, arguments: Arguments) -> tuple[fx.Graph, dict[fx.Node, Any]]:
    """The graph of the module's forward on the example arguments, and what every node gave.

    Raises TraceRefused with the reason where the forward cannot be traced.
    """
    try:
        return _traced(module, ConcreteTracer(name, arguments.copied(), rigid=False))
    except TraceRefused:
        return _traced(module, ConcreteTracer(name, arguments.copied(), rigid=True))


def _traced(module: nn.Module, tracer: ConcreteTracer) -> tuple[fx.Graph, dict[fx.Node, Any]]:
    try:
        with torch.no_grad():
            graph = tracer.trace(module)
    except TraceRefused:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        raise TraceRefused(
            f"its forward cannot be traced ({type(error).__name__}: {text[0] if text else 'no message'})"
        ) from error
    _keep_constants(module)
    return graph, tracer.values


def _keep_constants(module: nn.Module) -> None:
    """Tensors that the forward makes anew become buffers, so that they move with the module."""
    for name in [name for name in vars(module) if name.startswith("_tensor_constant")]:
        constant = module.__dict__.pop(name)
        module.register_buffer(name, constant, persistent=False)
