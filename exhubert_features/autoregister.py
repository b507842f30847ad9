"""Make transformers' Auto classes know ExHuBERT, without importing transformers.

A finder on ``sys.meta_path`` sees the three files with the Auto classes go by when transformers
loads them, whenever that is, and registers our classes right after. It finds nothing
itself and touches no other import.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

# transformers' file, and ours under integrations/transformers that registers with it.
_REGISTERED_BY = {
    "transformers.models.auto.configuration_auto": "configuration",
    "transformers.models.auto.feature_extraction_auto": "feature_extraction",
    "transformers.models.auto.modeling_auto": "modeling",
}
_pending: list[str] = []


def install() -> None:
    """Register now with what is loaded, and later with what will be."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    for name in _REGISTERED_BY:
        if name in sys.modules:
            _register(name)


class _Finder:
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _REGISTERED_BY:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, _Finder) else finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = cast("Loader", _Loader(spec.loader))
                return spec
        return None


class _Loader:
    """Another loader, and a registration after it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module shall look as if we had not been there.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register(module.__name__)


def _register(name: str) -> None:
    """Register what belongs to one of transformers' files, and whatever comes up meanwhile.

    Our file may make transformers load another of its three; that one's turn comes when ours
    is whole.
    """
    _pending.append(name)
    if len(_pending) > 1:
        return
    while _pending:
        ours = f"{__package__}.integrations.transformers.{_REGISTERED_BY[_pending[0]]}"
        try:
            import_module(ours).register()
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            # Somebody else's import of transformers must not fail because of us.
            warnings.warn(
                f"transformers will not know ExHuBERT checkpoints ({error}); "
                "exhubert_features itself works without it",
                stacklevel=2,
            )
        finally:
            _pending.pop(0)
