/* test_simd.h - the body of every test_simd_*.c: the tests of the vector layer, and of exp.h on it, for both dtypes. A
 * stamp includes it after its vector layer, with its target switched on. */
#define DTYPE f32
#include "test_simd_template.h"
#undef DTYPE
#define DTYPE f64
#include "test_simd_template.h"
#undef DTYPE
#include "test_halves.h"

static void test_simd(void)
{
    test_operations_f32();
    test_operations_f64();
    test_halves();
    test_accuracy_f32();
    test_accuracy_f64();
}
