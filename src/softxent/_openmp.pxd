# _openmp.pxd - OpenMP or its absence: the same names either way, and a number that tells which.

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define SOFTXENT_OPENMP_VERSION _OPENMP
    #else
    #define SOFTXENT_OPENMP_VERSION 0
    static int omp_in_parallel(void) { return 0; }
    #endif
    """
    const int SOFTXENT_OPENMP_VERSION
    int omp_in_parallel() noexcept nogil
