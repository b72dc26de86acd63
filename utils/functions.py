"""Finding classes by the `module@Class` names of configuration files."""

import importlib
import inspect
import pkgutil

from utils.errors import UserError, did_you_mean

# names in published and in earlier configuration files -> where the code lives here
ALIASES = {
    "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1": "recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1",
    "text_loss@TextLossHead": "text.loss@TextLossHead",
}


def load_model_class(identifier: str, prefix: str = "models.") -> type:
    """The class that `identifier`, such as `recursive_reasoning.trm@TinyRecursiveModel`, names.

    Args:
        identifier: `module@Class`, the module relative to `prefix`.
        prefix: `models.` for architectures and losses, `evaluators.` for evaluators.

    Raises:
        UserError: no such module or class; names what there is.
    """
    identifier = ALIASES.get(identifier, identifier)
    module_name, separator, class_name = identifier.partition("@")
    if not separator or not module_name or not class_name:
        raise UserError(f"{identifier!r} is no class name: write module@Class, for example losses@ACTLossHead.")
    module_name = prefix + module_name
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module is there, and something that it imports is not
        raise UserError(f"{identifier!r}: there is no module {module_name}.{_neighbours(module_name)}") from None
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        classes = [name for name in own if inspect.isclass(getattr(module, name))]
        raise UserError(
            f"{identifier!r}: {module_name} has no class {class_name}.{did_you_mean(class_name, classes)} "
            f"It has {', '.join(classes)}."
        )
    return found


def _neighbours(module_name: str) -> str:
    """What there is in the package of a module that is not there."""
    package_name, _, name = module_name.rpartition(".")
    try:
        package = importlib.import_module(package_name)
    except ImportError:
        return f" There is no package {package_name} either."
    names = [found.name for found in pkgutil.iter_modules(package.__path__)] if hasattr(package, "__path__") else []
    return f"{did_you_mean(name, names)} In {package_name} there are {', '.join(names)}."
