/* functions.h - the public functions of each operation, by dtype, from the library's own list. */
#ifndef SOFTXENT_TESTS_FUNCTIONS_H
#define SOFTXENT_TESTS_FUNCTIONS_H

#include "kernels.h"

/* Breaks the build where a struct has a field behind `last`, the last one that the code there knows: it is to be added
 * there too. */
#define KNOWS_FIELDS_UP_TO(last, type)                                                                                 \
    _Static_assert(sizeof(type) - offsetof(type, last) - sizeof(((type *)0)->last) < _Alignof(type),                   \
                   "there is a new field of " #type ": add it here")

/* An operation has functions of one kind: with a bad_sample argument, or without one. */
typedef struct {
    const char *name;
    int (*bad_sample[2])(const softxent_block *, ptrdiff_t *); /* for float, for double */
    int (*logits_alone[2])(const softxent_block *);
} functions;

static inline const functions *functions_of(softxent_op op)
{
#define BAD_SAMPLE(name)                                                                                               \
    {                                                                                                                  \
        #name, {softxent_##name##_f32, softxent_##name##_f64}, { NULL, NULL }                                          \
    }
#define LOGITS_ALONE(name)                                                                                             \
    {                                                                                                                  \
        #name, {NULL, NULL}, { softxent_##name##_f32, softxent_##name##_f64 }                                          \
    }
#define FUNCTIONS_OF(NAME, name, last, traits) last(name),
    static const functions all[] = {SOFTXENT_OPS(FUNCTIONS_OF)};
#undef FUNCTIONS_OF
#undef BAD_SAMPLE
#undef LOGITS_ALONE
    return &all[op];
}

static inline int call_function(softxent_op op, int is_f64, const softxent_block *b, ptrdiff_t *bad)
{
    const functions *f = functions_of(op);
    return f->bad_sample[is_f64] ? f->bad_sample[is_f64](b, bad) : f->logits_alone[is_f64](b);
}

#endif
