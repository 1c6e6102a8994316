"""python setup.py build_ext --inplace && python -c "import losses" """

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

import softxent

losses = Extension(
    "losses",
    ["losses.pyx"],
    include_dirs=[softxent.get_include(), numpy.get_include()],
    library_dirs=[softxent.get_library_dir()],
    libraries=["softxent"],
    extra_compile_args=["-fopenmp"],
    extra_link_args=["-fopenmp"],
)
setup(name="losses", ext_modules=cythonize([losses], language_level=3))
