"""A poor link between two network namespaces, in user space: `path` decides, `lab` carries packets."""
