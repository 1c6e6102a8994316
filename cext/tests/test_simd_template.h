/* test_simd_template.h - template: every test of the vector layer for one dtype. It defines the same words as
 * template.h. */
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME_(a) #a
#define NAME(a) NAME_(a)
#define V(op) PASTE(op, DTYPE)
#define D(NAME) PASTE(NAME, DTYPE)
#define T(name) PASTE(name, DTYPE)
#define RUN(name) run_test(#name " " NAME(DTYPE), T(test_##name))
#define real PASTE(real, DTYPE)
#define vec PASTE(vec, DTYPE)
#define mask PASTE(mask, DTYPE)
#define LANES D(LANES)

#include "templates/exp.h"
#include "test_operations.h"
#include "test_accuracy.h"

#undef PASTE_
#undef PASTE
#undef NAME_
#undef NAME
#undef V
#undef D
#undef T
#undef RUN
#undef real
#undef vec
#undef mask
#undef LANES
