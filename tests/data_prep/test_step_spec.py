from data_prep import augmenters, cleaners
from data_prep.step_spec import list_specs


def test_the_folders_are_the_registry() -> None:
    for package in (cleaners, augmenters):
        specs = list_specs(package)
        assert specs
        for name, spec in specs.items():
            module = type(spec).__module__ and spec.options.__module__
            assert module == f"{package.__name__}.{name}", "SPEC is named like its file"
            assert f"{name}.py" in (package.__doc__ or ""), "the room sign names every file"
            assert spec.title and spec.summary.endswith(".")
            for field in spec.options.model_fields.values():
                assert field.title and field.description and not field.is_required()
