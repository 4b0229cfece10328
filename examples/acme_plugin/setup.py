"""The package acme_plugin. Once it is installed, lavis_lite finds it by its entry point."""

from setuptools import setup

setup(
    name="acme_plugin",
    version="0.1",
    packages=["acme_plugin"],
    package_data={"acme_plugin": ["zoo.yaml"]},
    install_requires=["lavis_lite"],
    entry_points={"lavis_lite.projects": ["acme_plugin = acme_plugin"]},
)
