# _openmp.pxd - OpenMP or its absence: a number that tells which, the month of the specification or 0.

cdef extern from *:
    """
    #ifdef _OPENMP
    #define SOFTXENT_OPENMP_VERSION _OPENMP
    #else
    #define SOFTXENT_OPENMP_VERSION 0
    #endif
    """
    const int SOFTXENT_OPENMP_VERSION
