# _openmp.pxd - OpenMP or its absence, and what this process knows of threads beside it: the calls that have threads at
# work, and whether it is the child of a fork, where the threads of its parent are not.

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define SOFTXENT_OPENMP_VERSION _OPENMP /* the month of the specification */
    #else
    #define SOFTXENT_OPENMP_VERSION 0
    #define omp_get_max_threads() 1
    #define omp_in_parallel() 0
    #endif

    static long softxent_teams;
    #ifdef _MSC_VER
    #include <intrin.h>
    #define softxent_add_team(n) _InterlockedExchangeAdd(&softxent_teams, n)
    #else
    #define softxent_add_team(n) __atomic_fetch_add(&softxent_teams, n, __ATOMIC_RELAXED)
    #endif

    static int softxent_forked;
    #ifdef _WIN32
    #define softxent_watch_forks() 0
    #else
    #include <pthread.h>
    static void softxent_note_fork(void) { softxent_forked = 1; }
    #define softxent_watch_forks() pthread_atfork(NULL, NULL, softxent_note_fork)
    #endif
    """
    const int SOFTXENT_OPENMP_VERSION
    int omp_get_max_threads() nogil
    int omp_in_parallel() nogil
    long softxent_add_team(long n) nogil  # how many there were before
    const bint softxent_forked
    int softxent_watch_forks()
