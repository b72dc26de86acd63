"""Loading classes by the `module@Class` names used in configuration files."""

import importlib
import inspect
import pkgutil

from utils.errors import UserError, did_you_mean

# name in a published or older configuration file -> current name
ALIASES = {
    "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1": "recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1",
    "text_loss@TextLossHead": "text.loss@TextLossHead",
    "eqr@EqRModel": "recursive_reasoning.eqr@EqRModel",
    "recursive_reasoning.trm_equi@SERRM": "recursive_reasoning.se_rrm@SERRM",
    "fixed_point_reasoning.fprm@FixedPointReasoningModel_ACTV1": (
        "recursive_reasoning.fprm@FixedPointReasoningModel_ACTV1"
    ),
}


def canonical_name(identifier: str) -> str:
    """The current name of a class that a published or older configuration names."""
    return ALIASES.get(identifier, identifier)


def load_class(identifier: str, prefix: str = "models.") -> type:
    """Load the class named by `identifier`, such as `recursive_reasoning.trm@TinyRecursiveModel`.

    Args:
        identifier: `module@Class`, with the module relative to `prefix`.
        prefix: `models.` for architectures and losses, `evaluators.` for evaluators.

    Raises:
        UserError: there is no such module or class; the message lists the alternatives. Only modules below `prefix` are
            imported, and only their own classes are found, because configurations come with checkpoints of others.
    """
    identifier = canonical_name(identifier)
    module_name, separator, class_name = identifier.partition("@")
    if not separator or not module_name or not class_name:
        raise UserError(f"{identifier!r} is no class name: write module@Class, for example losses@ACTLossHead.")
    module_name = prefix + module_name
    if not all(part.isidentifier() for part in module_name.split(".")):  # such as a relative name
        raise UserError(f"{identifier!r}: there is no module {module_name}. Write the names of packages with dots.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module exists, but one of its imports does not
        raise UserError(f"{identifier!r}: there is no module {module_name}.{_neighbours(module_name)}") from None
    value = getattr(module, class_name, None)
    if not inspect.isclass(value) or not value.__module__.startswith(prefix):
        own = [name for name, member in vars(module).items() if getattr(member, "__module__", "") == module_name]
        classes = [name for name in own if inspect.isclass(getattr(module, name))]
        raise UserError(
            f"{identifier!r}: {module_name} has no class {class_name}.{did_you_mean(class_name, classes)} "
            f"It has {', '.join(classes)}."
        )
    return value


load_model_class = load_class  # the published name


def _neighbours(module_name: str) -> str:
    """A message that lists the modules in the package of a module that does not exist."""
    package_name, _, name = module_name.rpartition(".")
    try:
        package = importlib.import_module(package_name)
    except ImportError:
        return f" There is no package {package_name} either."
    names = [info.name for info in pkgutil.iter_modules(package.__path__)] if hasattr(package, "__path__") else []
    return f"{did_you_mean(name, names)} In {package_name} there are {', '.join(names)}."
