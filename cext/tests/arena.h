/* arena.h - memory in which a wrong access shows, and reproducible random numbers.
 *
 * An arena is a stretch of pages with a page on either side that nobody may touch: an array put against one of its
 * ends cannot be overrun there without a fault. On a system without pages, or with NO_GUARDS (an emulator may read what
 * a masked load leaves out), the arena is ordinary memory, and only what is written out of bounds is found. Must be
 * included before any system header. */
#ifndef SOFTXENT_TESTS_ARENA_H
#define SOFTXENT_TESTS_ARENA_H

#ifndef _DEFAULT_SOURCE
#  define _DEFAULT_SOURCE /* mmap and setenv need it: C11 does not have them */
#endif
#define __USE_MINGW_ANSI_STDIO 1 /* long double needs it: the printf of Windows does not have that type */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
/* These are declared here because windows.h makes macros of OUT and near. */
__declspec(dllimport) void *__stdcall VirtualAlloc(void *, size_t, unsigned long kind, unsigned long protection);
enum { MEM_COMMIT = 0x1000, MEM_RESERVE = 0x2000, PAGE_NOACCESS = 0x01, PAGE_READWRITE = 0x04 };
#elif defined(__unix__) || defined(__APPLE__)
#  include <sys/mman.h>
#  include <unistd.h>
#elif !defined(NO_GUARDS)
#  define NO_GUARDS
#endif

typedef struct {
    unsigned char *start, *end;
} arena;

enum { CANARY = 0xa5 };

/* Allocates so many bytes, in whole pages, between two pages that nobody may touch. NULL if there is no memory. */
#if defined(NO_GUARDS)
static inline size_t page_size(void) { return 64; }

static inline void *guarded(size_t size, size_t page) { return malloc(size + page); }
#elif defined(_WIN32)
static inline size_t page_size(void) { return 4096; }

static inline void *guarded(size_t size, size_t page)
{
    unsigned char *p = (unsigned char *)VirtualAlloc(NULL, size + 2 * page, MEM_RESERVE, PAGE_NOACCESS);
    return p ? VirtualAlloc(p + page, size, MEM_COMMIT, PAGE_READWRITE) : NULL;
}
#else
static inline size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static inline void *guarded(size_t size, size_t page)
{
    unsigned char *p = (unsigned char *)mmap(NULL, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p != MAP_FAILED && mprotect(p + page, size, PROT_READ | PROT_WRITE) == 0 ? p + page : NULL;
}
#endif

static inline arena arena_of(size_t bytes)
{
    const size_t page = page_size(), size = (bytes + page - 1) / page * page;
    arena a = {(unsigned char *)guarded(size, page), NULL};
    if (!a.start) {
        puts("no memory for the tests");
        exit(2);
    }
    a.end = a.start + size;
    memset(a.start, CANARY, size);
    return a;
}

/* The place in the arena of an array of so many bytes: against the arena's end, or at its start. */
static inline void *arena_place(arena a, size_t bytes, int at_end)
{
    if (bytes > (size_t)(a.end - a.start)) {
        puts("an arena is too small");
        exit(2);
    }
    return at_end ? a.end - bytes : a.start;
}

/* splitmix64: Steele, Lea and Flood, OOPSLA 2014. */
static uint64_t random_state = 1;

static inline uint64_t random_bits(void)
{
    uint64_t x = random_state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline double random_between(double low, double high)
{
    return low + (high - low) * ((double)(random_bits() >> 11) * 0x1p-53);
}

#endif
