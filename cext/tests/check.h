/* check.h - how a test reports what went wrong. A program is a list of tests, and a test is any number of checks. A
 * check that fails prints its expression and its case, and the test goes on. This file does not depend on what is
 * tested. */
#ifndef SOFTXENT_TESTS_CHECK_H
#define SOFTXENT_TESTS_CHECK_H

#include <stdio.h>

enum { COMPLAINTS = 5 }; /* failures of one test that are printed; the others are only counted */

static struct {
    const char *isa, *test;
    char about[200]; /* the case at hand, which a failure prints; a test with several cases fills it in */
    int passed, failed;
    long wrong; /* failed checks of the test that is running */
} tally = {"", "", "", 0, 0, 0};

#define CHECK(condition) ((void)((condition) || check_failed(#condition, __FILE__, __LINE__)))
#define ABOUT(...) ((void)snprintf(tally.about, sizeof tally.about, __VA_ARGS__))

static inline int check_failed(const char *expression, const char *file, int line)
{
    if (++tally.wrong <= COMPLAINTS)
        printf("%s:%d: %s %s: %s: not so: %s\n", file, line, tally.isa, tally.test, tally.about, expression);
    return 0;
}

static inline void run_test(const char *name, void (*test)(void))
{
    tally.test = name, tally.wrong = 0;
    ABOUT("-");
    test();
    if (tally.wrong > COMPLAINTS) printf("%s %s: %ld failed checks in all\n", tally.isa, name, tally.wrong);
    if (tally.wrong)
        ++tally.failed;
    else
        ++tally.passed;
    fflush(stdout); /* the failures so far are not lost if a later test crashes */
}

#define RUN_TEST(function) run_test(#function, function)

/* Prints the last line of every program, and returns its exit status. */
static inline int report(void)
{
    printf("%d passed, %d failed\n", tally.passed, tally.failed);
    return tally.failed != 0;
}

#endif
