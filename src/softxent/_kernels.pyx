# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True, autotestdict=False
"""Which thread takes which samples: blocks of samples spread over threads, and the way from NumPy to them.

Two ways lead to the C library. `plain_cross_entropy` takes the common call (contiguous floats, index labels, no
option) straight from the public function through the NumPy C-API. A `Call` takes everything else, as the Python floor
has checked it. Both describe the work in a `Job`, and `run` carries it out.
"""

import os
import sys

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE
from cython.parallel cimport prange
from libc.float cimport DBL_MAX, DBL_MIN, FLT_MAX
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from softxent._openmp cimport (
    SOFTXENT_OPENMP_VERSION, omp_get_max_threads, omp_in_parallel, softxent_add_team, softxent_forked,
    softxent_watch_forks,
)
from softxent.cext cimport *

cnp.import_array()

ctypedef fused real:
    float
    double

OPENMP_VERSION = SOFTXENT_OPENMP_VERSION

if softxent_watch_forks() != 0:
    raise MemoryError("no memory for the handler of forks")

# LLVM's OpenMP runtime ends the process when it finds a second copy of itself, unless this is set. Wheels for macOS
# bundle a copy, and so do PyTorch's and scikit-learn's.
if sys.platform == "darwin":
    os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "True")

cdef int openmp_threads = omp_get_max_threads()


class BadSample(Exception):
    """A label is no class, or a target has an entry that is no mass. The argument is the index of the sample, a tuple:
    of those that are bad, the first in the order in which the kernels go through memory."""


# The threads that a call may have of those that it is to have: in a forked child, where the OpenMP runtime of the
# parent is not usable, and inside another parallel region just the calling one; and where OpenMP's own number has been
# lowered since the import, as threadpoolctl does, no more than that.
cdef int allowed_threads(int n_threads) noexcept nogil:
    cdef int limit = omp_get_max_threads()
    if softxent_forked or omp_in_parallel():
        return 1
    return min(n_threads, limit) if limit < openmp_threads else n_threads


def limit_of_threads(int n_threads):
    """What is allowed of so many, and what decided it; None if nothing did."""
    cdef int allowed = allowed_threads(n_threads)
    if softxent_forked:
        return 1, "a forked child process"
    return allowed, "OpenMP's own limit" if allowed < n_threads else None


# ------------------------------------------------------------------------------------------------------------------
# The instruction set: chosen at the first call, so that a bad SOFTXENT_ISA is an error there and not at import.

cdef const softxent_isa *chosen_isa = NULL


cdef const softxent_isa *isa() except NULL:
    if chosen_isa == NULL:
        use_isa(None)
    return chosen_isa


def usable_isas():
    """The instruction sets that this build and this machine have kernels for, the fastest first."""
    cdef int i = 0
    names = []
    while softxent_isa_usable(i) != NULL:
        names.append(softxent_isa_usable(i).decode())
        i += 1
    return names


def isa_in_use():
    """The name of the instruction set whose kernels run."""
    return softxent_isa_name(isa()).decode()


def use_isa(name):
    """Run the kernels called `name` from now on; None stands for SOFTXENT_ISA or else the fastest."""
    global chosen_isa
    cdef const softxent_isa *found = NULL
    cdef bytes encoded
    cdef const char *asked_for = NULL
    if name is not None:
        encoded = name.encode()
        asked_for = encoded
    if softxent_isa_select(asked_for, &found) != SOFTXENT_OK:
        asked = f"SOFTXENT_ISA={os.environ.get('SOFTXENT_ISA')!r}" if name is None else f"isa {name!r}"
        raise RuntimeError(f"{asked} is unknown or cannot run here; usable are: {', '.join(usable_isas())}")
    chosen_isa = found


# ------------------------------------------------------------------------------------------------------------------
# Jobs: what to compute, over which samples, in how many chunks.

ctypedef int (*OfLabels)(const softxent_block *, ptrdiff_t *) noexcept nogil
ctypedef int (*OfLogits)(const softxent_block *) noexcept nogil


# An operation: the C functions for float64 and float32, of the kind that may meet a bad label or target or of the kind
# that cannot.
cdef struct Operation:
    OfLabels of_labels[2]
    OfLogits of_logits[2]
    bint has_losses  # which are summed where no array takes them
    bint is_square  # it has C^2 entries for each sample

DEF MAX_OPERATIONS = 16
cdef Operation operations[MAX_OPERATIONS]

# The place of each by the name that the Python floor has for it.
cdef dict OPERATIONS = {}


cdef Operation *new_operation(str name) except NULL:
    cdef int number = len(OPERATIONS)
    if number == MAX_OPERATIONS or name in OPERATIONS:
        raise RuntimeError(f"{name}: there are {number} operations, and one of this name or no room for more")
    OPERATIONS[name] = number
    return &operations[number]


cdef int add_of_labels(str name, OfLabels f64, OfLabels f32, bint has_losses) except -1:
    cdef Operation *new = new_operation(name)
    new.of_labels[0], new.of_labels[1], new.has_losses = f64, f32, has_losses
    return 0


cdef int add_of_logits(str name, OfLogits f64, OfLogits f32, bint is_square) except -1:
    cdef Operation *new = new_operation(name)
    new.of_logits[0], new.of_logits[1], new.is_square = f64, f32, is_square
    return 0


add_of_labels("cross_entropy", softxent_cross_entropy_f64, softxent_cross_entropy_f32, True)
add_of_labels("rank", softxent_cross_entropy_and_rank_f64, softxent_cross_entropy_and_rank_f32, True)
add_of_labels("hvp", softxent_cross_entropy_hvp_f64, softxent_cross_entropy_hvp_f32, False)
add_of_labels("check_target", softxent_check_target_f64, softxent_check_target_f32, False)
add_of_logits("softmax", softxent_softmax_f64, softxent_softmax_f32, False)
add_of_logits("log_softmax", softxent_log_softmax_f64, softxent_log_softmax_f32, False)
add_of_logits("logsumexp", softxent_logsumexp_f64, softxent_logsumexp_f32, False)
add_of_logits("jvp", softxent_softmax_jvp_f64, softxent_softmax_jvp_f32, False)
add_of_logits("jacobian", softxent_softmax_jacobian_f64, softxent_softmax_jacobian_f32, True)

cdef const Operation *CROSS_ENTROPY = &operations[<int> OPERATIONS["cross_entropy"]]

cdef dict HESS_KINDS = {"exact": SOFTXENT_EXACT, "xgboost": SOFTXENT_XGBOOST, "lightgbm": SOFTXENT_LIGHTGBM}

# The losses are summed chunk by chunk, and then the chunks in order: the number of chunks must not depend on the number
# of threads. It is bounded, because each chunk's sum is kept. A chunk has some 16 K logits at least: a smaller one
# takes less time than a thread needs to fetch it.
DEF MAX_CHUNKS = 512
DEF CHUNK_LOGITS = 16384
# Labels in a chunk when nothing but they are looked at: some 20 microseconds of work.
DEF CHUNK_LABELS = 65536
# How often a thread fetches chunks, all being equal. Those that it fetches together lie behind each other: while the
# kernels work on a sample they ask for the next.
DEF FETCHES = 16
# Losses that are only to be summed pass through so long a buffer on the stack.
DEF LOSS_BUFFER = 1024
# After so many logits, tenths of a second or with rare options seconds, Python gets to see whether somebody pressed
# Ctrl-C.
DEF ROUND_LOGITS = 1 << 28
# Below so many logits a second thread costs more than it brings: some 10 microseconds of work.
DEF SERIAL_LOGITS = 32768


# NumPy's own limit.
DEF MAX_AXES = 64


# The arrays that have an entry, or a row of them, for each sample.
cdef enum:
    LOGITS
    LABELS
    TARGET
    WHERE
    SAMPLE_WEIGHT
    DIRECTION
    GRAD_OUTPUT
    LOSS
    OUT
    HESS
    RANKS
    TOPS
    N_ARRAYS


# Where in a block the pointer to each of them is, and its stride from sample to sample.
cdef struct Place:
    Py_ssize_t pointer, sample_stride

cdef Place places[N_ARRAYS]
cdef softxent_block a_block


cdef void set_place(int which, const void *pointer, const ptrdiff_t *sample_stride) noexcept:
    places[which].pointer = <const char *> pointer - <const char *> &a_block
    places[which].sample_stride = <const char *> sample_stride - <const char *> &a_block


set_place(LOGITS, &a_block.logits, &a_block.logits_sample_stride)
set_place(LABELS, &a_block.labels, &a_block.labels_stride)
set_place(TARGET, &a_block.target, &a_block.target_sample_stride)
set_place(WHERE, &a_block.where, &a_block.where_sample_stride)
set_place(SAMPLE_WEIGHT, &a_block.sample_weight, &a_block.sample_weight_stride)
set_place(DIRECTION, &a_block.direction, &a_block.direction_sample_stride)
set_place(GRAD_OUTPUT, &a_block.grad_output, &a_block.grad_output_stride)
set_place(LOSS, &a_block.loss, &a_block.loss_stride)
set_place(OUT, &a_block.out, &a_block.out_sample_stride)
set_place(HESS, &a_block.hess, &a_block.hess_sample_stride)
set_place(RANKS, &a_block.rank, &a_block.rank_stride)
set_place(TOPS, &a_block.top, &a_block.top_stride)

if not all([places[which].pointer for which in range(N_ARRAYS)]):
    raise SystemError("an array has no place in a block")


cdef inline char **pointer_in(softxent_block *b, int which) noexcept nogil:
    return <char **> (<char *> b + places[which].pointer)


# What the chunks of a call have come to. A call may be done in several runs, of pieces of its samples. Then a chunk may
# begin in one of them and end in another.
cdef struct Sums:
    Py_ssize_t n_done
    double loss
    double unfinished[4]


# The block describes the first sample and the strides of the last sample axis. There is one axis at least; along it an
# array has so many bytes from one sample to the next.
cdef struct Job:
    softxent_block block
    softxent_options options
    const Operation *operation
    bint f32
    Py_ssize_t n_samples
    Py_ssize_t n_logits
    Py_ssize_t chunk_samples
    int n_axes
    Py_ssize_t shape[MAX_AXES]
    Py_ssize_t steps[N_ARRAYS][MAX_AXES]
    Py_ssize_t item_size[N_ARRAYS]


# What a chunk leaves: four sums of its losses; how its last call ended; its first sample with a bad label or target, or
# -1.
cdef struct Chunk:
    double loss[4]
    int status
    Py_ssize_t bad_sample


# Of samples whose axes are told later; those of `n_all` samples are divided into chunks.
cdef void start_job(Job *job, const Operation *operation, bint f32, Py_ssize_t n_samples, Py_ssize_t n_all,
                    Py_ssize_t n_classes) except *:
    memset(&job.block, 0, sizeof(softxent_block))
    memset(&job.options, 0, sizeof(softxent_options))
    job.block.size = sizeof(softxent_block)
    job.block.isa = isa()
    job.block.n_classes = n_classes
    job.block.grad_scale = 1.0
    job.options.size = sizeof(softxent_options)
    job.operation = operation
    job.f32 = f32
    job.n_samples = n_samples
    cdef Py_ssize_t sample_logits = n_classes * n_classes if operation.is_square else n_classes
    job.n_logits = n_samples * sample_logits
    job.chunk_samples = chunk_samples(n_all, sample_logits)


cdef Py_ssize_t chunk_samples(Py_ssize_t n_samples, Py_ssize_t sample_logits) noexcept nogil:
    cdef Py_ssize_t samples = max((n_samples + MAX_CHUNKS - 1) // MAX_CHUNKS,
                                  (CHUNK_LOGITS + sample_logits - 1) // sample_logits)
    return (samples + 15) // 16 * 16 if samples > 16 else samples


cdef inline int call_kernel(const Job *job, const softxent_block *b, ptrdiff_t *bad_sample) noexcept nogil:
    if job.operation.of_labels[job.f32] != NULL:
        return job.operation.of_labels[job.f32](b, bad_sample)
    return job.operation.of_logits[job.f32](b)


cdef inline Py_ssize_t offset_of(const Py_ssize_t *steps, const Py_ssize_t *index, int n_axes) noexcept nogil:
    cdef Py_ssize_t offset = 0
    cdef int i
    for i in range(n_axes):
        offset += index[i] * steps[i]
    return offset


# Makes `b` the block of samples from `begin` on, to `end` or to the end of the last axis; returns their number.
cdef Py_ssize_t set_block(softxent_block *b, const Job *job, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t index[MAX_AXES]
    cdef Py_ssize_t left = begin
    cdef char **pointer
    cdef int n = job.n_axes, i
    for i in range(n - 1, 0, -1):
        index[i] = left % job.shape[i]
        left //= job.shape[i]
    index[0] = left
    b[0] = job.block
    b.n_samples = min(end - begin, job.shape[n - 1] - index[n - 1])
    for i in range(N_ARRAYS):
        pointer = pointer_in(b, i)
        if pointer[0] != NULL:
            pointer[0] += offset_of(job.steps[i], index, n)
    return b.n_samples


# Adds the losses to four sums in turn, the first to number `first % 4`: how they are cut into blocks does not matter.
cdef inline void add_losses(double *sums, const real *x, Py_ssize_t n, Py_ssize_t first) noexcept nogil:
    cdef double s[4]
    cdef Py_ssize_t i = 0
    cdef int k
    for k in range(4):
        s[k] = sums[(first + k) & 3]
    while i + 4 <= n:
        s[0] += x[i]
        s[1] += x[i + 1]
        s[2] += x[i + 2]
        s[3] += x[i + 3]
        i += 4
    for k in range(3):
        if i + k < n:
            s[k] += x[i + k]
    for k in range(4):
        sums[(first + k) & 3] = s[k]


cdef inline double total_of(const double *sums) noexcept nogil:
    return (sums[0] + sums[1]) + (sums[2] + sums[3])


# The samples from `begin` to `end`, of which the first is number `first` of its chunk.
cdef void run_chunk(const Job *job, Chunk *chunk, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first) noexcept nogil:
    cdef double losses[LOSS_BUFFER]
    cdef softxent_block b
    cdef Py_ssize_t n
    cdef ptrdiff_t bad = -1
    cdef bint summed = job.operation.has_losses and job.block.loss == NULL
    chunk.status = SOFTXENT_OK
    chunk.bad_sample = -1
    while begin < end:
        n = set_block(&b, job, begin, min(end, begin + LOSS_BUFFER) if summed else end)
        if summed:
            b.loss = losses
            b.loss_stride = 1
            b.loss_type = SOFTXENT_REAL
        chunk.status = call_kernel(job, &b, &bad)
        if chunk.status != SOFTXENT_OK:
            chunk.bad_sample = begin + bad
            return
        if summed and job.f32:
            add_losses(chunk.loss, <float *> losses, n, first)
        elif summed:
            add_losses(chunk.loss, losses, n, first)
        begin += n
        first += n


# A call's share of the threads that it may have: it divides them with the calls that run at the same time. What has
# joined must leave.
cdef int join_teams(int n_threads) noexcept nogil:
    cdef long others = softxent_add_team(1)
    return max(1, allowed_threads(n_threads) // (1 + <int> others))


cdef void leave_teams() noexcept nogil:
    softxent_add_team(-1)


# Chunk number `p` of those that the job has samples of: the first may have been begun before.
cdef void run_nth_chunk(const Job *job, Chunk *chunks, Py_ssize_t p, const Sums *before) noexcept nogil:
    cdef Py_ssize_t step = job.chunk_samples, first = before.n_done % step, begin = p * step - first
    if p == 0:
        memcpy(chunks[p].loss, before.unfinished, sizeof(chunks[p].loss))
    else:
        memset(chunks[p].loss, 0, sizeof(chunks[p].loss))
    run_chunk(job, &chunks[p], max(begin, 0), min(begin + step, job.n_samples), first if p == 0 else 0)


# Every chunk, over the threads, in rounds. Adds the losses to `sums` and returns the number of the first bad sample, or
# -1. The GIL is let go here and not outside: Cython's prange asks there whether it is held, and where there are
# subinterpreters Python's answer is always yes.
cdef Py_ssize_t run(const Job *job, int n_threads, Sums *sums) except? -2:
    cdef Chunk chunks[MAX_CHUNKS + 1]
    cdef Py_ssize_t step = job.chunk_samples, n_begun = sums.n_done % step
    cdef Py_ssize_t n_chunks = (n_begun + job.n_samples + step - 1) // step
    cdef Py_ssize_t at_once = max(1, ROUND_LOGITS // max(1, job.n_logits // max(1, n_chunks)))
    cdef Py_ssize_t p, at_a_time, begin = 0, end = min(n_chunks, at_once)
    cdef bint is_parallel = n_threads > 1 and n_chunks > 1 and job.n_logits >= SERIAL_LOGITS
    if is_parallel:
        n_threads = join_teams(<int> min(<Py_ssize_t> n_threads, n_chunks))
    try:
        while begin < n_chunks:
            with nogil:
                if is_parallel:
                    at_a_time = max(1, (end - begin) // (n_threads * FETCHES))
                    for p in prange(begin, end, num_threads=n_threads, schedule="dynamic", chunksize=at_a_time):
                        run_nth_chunk(job, chunks, p, sums)
                else:
                    for p in range(begin, end):
                        run_nth_chunk(job, chunks, p, sums)
            begin, end = end, min(n_chunks, end + at_once)
            if begin < n_chunks:
                PyErr_CheckSignals()
    finally:
        if is_parallel:
            leave_teams()
    for p in range(n_chunks):
        if chunks[p].status == SOFTXENT_BAD_LABEL or chunks[p].status == SOFTXENT_BAD_TARGET:
            return chunks[p].bad_sample
        if chunks[p].status != SOFTXENT_OK:  # an error of the floors above: they check what they hand down
            raise RuntimeError(f"the C library refuses the call: {softxent_strerror(chunks[p].status).decode()}")
    sums.n_done += job.n_samples
    memset(sums.unfinished, 0, sizeof(sums.unfinished))
    for p in range(n_chunks):
        if (p + 1) * step <= n_begun + job.n_samples:
            sums.loss += total_of(chunks[p].loss)
        else:
            memcpy(sums.unfinished, chunks[p].loss, sizeof(sums.unfinished))
    return -1


# ------------------------------------------------------------------------------------------------------------------
# Labels.

# The C library's name for a NumPy integer type, or -1.
cdef int label_type_of(cnp.ndarray labels) noexcept:
    cdef int size = <int> cnp.PyArray_ITEMSIZE(labels)
    cdef int log2_size = 0 if size == 1 else 1 if size == 2 else 2 if size == 4 else 3
    if cnp.PyArray_ISSIGNED(labels):
        return SOFTXENT_INT8 + log2_size
    if cnp.PyArray_ISUNSIGNED(labels):
        return SOFTXENT_UINT8 + log2_size
    return -1


# None, or a number that a label may have.
cdef inline void set_ignore_index(Job *job, ignore_index) except *:
    if ignore_index is not None:
        job.block.use_ignore_index = 1
        job.block.ignore_index = ignore_index


# Whether it is a number that signed labels of 64 bits may have.
cdef inline bint is_index(object x) except -1:
    return type(x) is int and -2**63 <= x < 2**63


# Of the samples from `begin` to `end`, how many labels count; and the first whose label is no class, or -1.
cdef struct Count:
    Py_ssize_t counted, bad_sample


cdef Count count_chunk(const Job *job, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Count count
    cdef ptrdiff_t n_counted = 0, bad = 0
    cdef softxent_block b
    cdef Py_ssize_t n
    count.counted = 0
    count.bad_sample = -1
    while begin < end and count.bad_sample < 0:
        n = set_block(&b, job, begin, end)
        if softxent_check_labels(&b, &n_counted, &bad) != SOFTXENT_OK:
            count.bad_sample = begin + bad
        count.counted += n_counted
        begin += n
    return count


# Of all samples, over the threads.
cdef Count count_labels(const Job *job, int n_threads) noexcept:
    cdef Count counts[MAX_CHUNKS]
    cdef Count all_of_them
    cdef Py_ssize_t n_samples = job.n_samples, p
    cdef Py_ssize_t step = max(<Py_ssize_t> CHUNK_LABELS, (n_samples + MAX_CHUNKS - 1) // MAX_CHUNKS)
    cdef Py_ssize_t n_chunks = (n_samples + step - 1) // step
    if n_chunks <= 1:
        return count_chunk(job, 0, n_samples)
    if n_threads <= 1:
        with nogil:
            return count_chunk(job, 0, n_samples)
    n_threads = join_teams(n_threads)
    for p in prange(n_chunks, num_threads=n_threads, schedule="dynamic", nogil=True):
        counts[p] = count_chunk(job, p * step, min((p + 1) * step, n_samples))
    leave_teams()
    all_of_them = counts[0]
    for p in range(1, n_chunks):
        if all_of_them.bad_sample < 0:
            all_of_them.counted += counts[p].counted
            all_of_them.bad_sample = counts[p].bad_sample
    return all_of_them


# The sum of the weights of the samples that count. Returns the first whose label is no class, or -1.
cdef Py_ssize_t sum_weights(const Job *job, double *total) noexcept nogil:
    cdef double weight = 0
    cdef Py_ssize_t begin = 0, n
    cdef ptrdiff_t bad = 0
    cdef softxent_block b
    total[0] = 0
    while begin < job.n_samples:
        n = set_block(&b, job, begin, job.n_samples)
        if (softxent_total_weight_f32 if job.f32 else softxent_total_weight_f64)(&b, &weight, &bad) != SOFTXENT_OK:
            return begin + bad
        total[0] += weight
        begin += n
    return -1


# ------------------------------------------------------------------------------------------------------------------
# Arrays: what the kernels can take.

# The number of ml_dtypes' type, once an array of it has been seen: telling names takes long.
cdef int bfloat16_number = -1


cdef inline bint is_bfloat16(cnp.ndarray array) except -1:
    global bfloat16_number
    cdef int number = cnp.PyArray_TYPE(array)
    if number == bfloat16_number:
        return True
    if cnp.PyArray_ITEMSIZE(array) != 2 or array.dtype.name != "bfloat16":
        return False
    bfloat16_number = number
    return True


cpdef bint is_behaved(cnp.ndarray array) except -1:
    """Whether it is in native byte order, aligned, and its strides are whole elements.

    Strides of aligned arrays are not, where the processor wants less alignment than an element is long.
    """
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(array)
    cdef int axis
    if not cnp.PyArray_ISBEHAVED_RO(array):
        return False
    for axis in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_STRIDE(array, axis) % size != 0:
            return False
    return True


# The C library's name for the elements of an array that it can take, or -1. Where it takes halves, beside float, it
# widens them itself.
cdef int element_type(cnp.ndarray array, bint f32, bint may_be_half) except -2:
    cdef int number = cnp.PyArray_TYPE(array)
    if not is_behaved(array):
        return -1
    if number == <int> (cnp.NPY_FLOAT32 if f32 else cnp.NPY_FLOAT64):
        return SOFTXENT_REAL
    if not (f32 and may_be_half):
        return -1
    return SOFTXENT_FLOAT16 if number == cnp.NPY_FLOAT16 else SOFTXENT_BFLOAT16 if is_bfloat16(array) else -1


# The first byte of an array and the one after its last.
cdef inline void extent_of(cnp.ndarray array, uintptr_t *low, uintptr_t *high) noexcept:
    cdef Py_ssize_t step
    cdef int axis
    low[0] = <uintptr_t> cnp.PyArray_DATA(array)
    high[0] = low[0] + <uintptr_t> cnp.PyArray_ITEMSIZE(array)
    for axis in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_DIM(array, axis) == 0:
            high[0] = low[0]
            return
        step = (cnp.PyArray_DIM(array, axis) - 1) * cnp.PyArray_STRIDE(array, axis)
        if step < 0:
            low[0] += <uintptr_t> step
        else:
            high[0] += <uintptr_t> step


cpdef bint are_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether one lies behind the other in memory. If not they may be interleaved, and share no byte all the same."""
    cdef uintptr_t a_low = 0, a_high = 0, b_low = 0, b_high = 0
    extent_of(a, &a_low, &a_high)
    extent_of(b, &b_low, &b_high)
    return a_high <= b_low or b_high <= a_low


cpdef bint is_same_view(cnp.ndarray a, cnp.ndarray b) except -1:
    """Whether both are the same entries of the same memory, in the same order."""
    cdef int axis
    if cnp.PyArray_DATA(a) != cnp.PyArray_DATA(b) or not cnp.PyArray_SAMESHAPE(a, b):
        return False
    for axis in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_STRIDE(a, axis) != cnp.PyArray_STRIDE(b, axis):
            return False
    return cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(b) and a.dtype == b.dtype


cdef inline bint all_lie_in(const real *x, Py_ssize_t n, double high) noexcept nogil:
    cdef Py_ssize_t i
    cdef int outside = 0
    for i in range(n):
        outside |= not (0 <= x[i] <= high)
    return not outside


# Whether these are contiguous floats of the type that is computed in, all from 0 to the largest.
cdef bint are_weights(cnp.ndarray array, bint f32) except -1:
    cdef Py_ssize_t n = cnp.PyArray_SIZE(array)
    cdef void *data = cnp.PyArray_DATA(array)
    cdef bint result
    if element_type(array, f32, False) < 0 or not cnp.PyArray_IS_C_CONTIGUOUS(array):
        return False
    if n <= CHUNK_LABELS:  # letting the GIL go costs more than so few
        return all_lie_in(<float *> data, n, FLT_MAX) if f32 else all_lie_in(<double *> data, n, DBL_MAX)
    with nogil:
        result = all_lie_in(<float *> data, n, FLT_MAX) if f32 else all_lie_in(<double *> data, n, DBL_MAX)
    return result


# ------------------------------------------------------------------------------------------------------------------
# The general call.

# The axes of samples that have more than one, the farthest steps in `array` first; returns how many.
cdef int order_axes(cnp.ndarray array, int class_axis, int *order) noexcept:
    cdef int n = 0, axis, i
    for axis in range(cnp.PyArray_NDIM(array)):
        if axis == class_axis or cnp.PyArray_DIM(array, axis) == 1:
            continue
        i = n
        while i > 0 and abs(cnp.PyArray_STRIDE(array, order[i - 1])) < abs(cnp.PyArray_STRIDE(array, axis)):
            order[i] = order[i - 1]
            i -= 1
        order[i] = axis
        n += 1
    return n


cpdef bint is_nested(cnp.ndarray array) noexcept:
    """Whether each axis steps over all that the axes with shorter steps reach: then no entries share memory.

    If not they may be interleaved, and share none all the same.
    """
    cdef int order[MAX_AXES]
    cdef int n, i
    cdef Py_ssize_t step, reach = cnp.PyArray_ITEMSIZE(array)
    if cnp.PyArray_IS_C_CONTIGUOUS(array):
        return True
    n = order_axes(array, -1, order)
    for i in range(n - 1, -1, -1):
        step = abs(cnp.PyArray_STRIDE(array, order[i]))
        if step < reach:
            return False
        reach += step * (cnp.PyArray_DIM(array, order[i]) - 1)
    return True


def sample_axes(cnp.ndarray array, int class_axis):
    """The axes of samples in the order in which a `Call` goes through them, but for those of one sample."""
    cdef int order[MAX_AXES]
    return [order[i] for i in range(order_axes(array, class_axis, order))]


# The error for a sample's number, in the order of the axes of samples of `array`.
cdef object bad_sample(cnp.ndarray array, int class_axis, Py_ssize_t number):
    cdef int order[MAX_AXES]
    cdef int n = order_axes(array, class_axis, order), i
    cdef list index = [0] * cnp.PyArray_NDIM(array)
    for i in range(n - 1, -1, -1):
        index[order[i]] = number % cnp.PyArray_DIM(array, order[i])
        number //= cnp.PyArray_DIM(array, order[i])
    del index[class_axis:class_axis + 1]
    return BadSample(tuple(index))


# Makes one axis of two where in every array the second continues the first.
cdef void fold_axes(Job *job, int n_arrays, const int *which) noexcept:
    cdef int last = 0, axis, i
    cdef bint go_on
    for axis in range(1, job.n_axes):
        go_on = True
        for i in range(n_arrays):
            go_on &= job.steps[which[i]][last] == job.steps[which[i]][axis] * job.shape[axis]
        if go_on:
            job.shape[last] *= job.shape[axis]
        else:
            last += 1
            job.shape[last] = job.shape[axis]
        for i in range(n_arrays):
            job.steps[which[i]][last] = job.steps[which[i]][axis]
    job.n_axes = last + 1


# The axes that a job's samples have, and the arrays that have them.
cdef struct Axes:
    int class_axis
    int n
    int order[MAX_AXES]
    int n_arrays
    int arrays[N_ARRAYS]


# Makes it the block's array, but for its strides and its type.
cdef inline void set_array(Job *job, Axes *axes, int which, cnp.ndarray array, bint has_classes) noexcept:
    cdef int i, axis
    pointer_in(&job.block, which)[0] = <char *> cnp.PyArray_DATA(array)
    job.item_size[which] = cnp.PyArray_ITEMSIZE(array)
    job.steps[which][0] = 0
    for i in range(axes.n):
        axis = axes.order[i]
        job.steps[which][i] = cnp.PyArray_STRIDE(array, axis - (not has_classes and axis > axes.class_axis))
    axes.arrays[axes.n_arrays] = which
    axes.n_arrays += 1


# Along the last of the axes.
cdef void set_sample_strides(Job *job, const Axes *axes) noexcept:
    cdef int i, which
    for i in range(axes.n_arrays):
        which = axes.arrays[i]
        (<ptrdiff_t *> (<char *> &job.block + places[which].sample_stride))[0] = (
            job.steps[which][job.n_axes - 1] // job.item_size[which])


cdef inline Py_ssize_t stride_of(cnp.ndarray array, int axis) noexcept:
    return cnp.PyArray_STRIDE(array, axis) // cnp.PyArray_ITEMSIZE(array)


@cython.final
@cython.auto_pickle(False)
cdef class Call:
    """A call as the Python floor has checked it: its arrays, as the user gave them, and its numbers.

    What is None, or 0, is left out. Labels are native integers, `where` bools, rank and top native int64 and the class
    weights contiguous reals of the type that is computed in. The others may be of any type: where it is one that the
    kernels do not take, the methods return None and have done nothing.
    """
    cdef public int class_axis
    cdef public bint f32
    cdef public cnp.ndarray logits, labels, target, where, sample_weight, direction, grad_output, class_weight
    cdef public cnp.ndarray loss, out, hess, rank, top
    cdef public cnp.ndarray given_class_weight  # by the user: outputs may not overlap it
    cdef public double label_smoothing, temperature, softcap, z_loss, log_base, grad_scale
    cdef public object ignore_index
    cdef public str hess_kind
    cdef public bint accumulate
    cdef public Py_ssize_t n_all
    cdef Sums sums

    def __cinit__(self):
        self.grad_scale = 1
        self.hess_kind = "exact"

    # What is usual is checked here, quickly. Where one of these declines, it has done nothing, and the Python floor
    # finds out what to do, or what is wrong.

    def take_logits(self, logits, axis):
        """Takes them if they are native floats in an array, and the axis is one of its."""
        if not (cnp.PyArray_CheckExact(logits) and type(axis) is int):
            return False
        cdef cnp.ndarray z = logits
        cdef int number = cnp.PyArray_TYPE(z), n_axes = cnp.PyArray_NDIM(z)
        if number not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64, cnp.NPY_FLOAT16) or not cnp.PyArray_ISNOTSWAPPED(z):
            return False
        if not -n_axes <= axis < n_axes:
            return False
        cdef int class_axis = axis
        class_axis += n_axes if class_axis < 0 else 0
        if cnp.PyArray_DIM(z, class_axis) == 0:
            return False
        self.logits, self.class_axis, self.f32 = z, class_axis, number != cnp.NPY_FLOAT64
        return True

    def take_labels(self, labels):
        """Takes them if they are native integers of the samples' shape, or native floats of the logits'."""
        if not (cnp.PyArray_CheckExact(labels) and is_behaved(labels)):
            return False
        cdef cnp.ndarray y = labels
        if label_type_of(y) >= 0:
            if not self.has_shape_of(y, False):
                return False
            self.labels = y
            return True
        if not (cnp.PyArray_TYPE(y) in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) and self.has_shape_of(y, True)):
            return False
        self.target = y
        return True

    def take_sample_weight(self, weights):
        """Takes them if they are good ones in an array of the type that is computed in, contiguous."""
        if not (cnp.PyArray_CheckExact(weights) and self.has_shape_of(weights, False) and
                are_weights(weights, self.f32)):
            return False
        self.sample_weight = weights
        return True

    def take_class_weight(self, weights):
        """The same for these."""
        if not (cnp.PyArray_CheckExact(weights) and cnp.PyArray_NDIM(weights) == 1 and
                cnp.PyArray_DIM(weights, 0) == cnp.PyArray_DIM(self.logits, self.class_axis) and
                are_weights(weights, self.f32)):
            return False
        self.class_weight = self.given_class_weight = weights
        return True

    # Of the logits or of the samples.
    cdef bint has_shape_of(self, cnp.ndarray array, bint with_classes) noexcept:
        cdef int n_axes = cnp.PyArray_NDIM(self.logits), axis, i = 0
        if cnp.PyArray_NDIM(array) != n_axes - (not with_classes):
            return False
        for axis in range(n_axes):
            if not with_classes and axis == self.class_axis:
                continue
            if cnp.PyArray_DIM(array, i) != cnp.PyArray_DIM(self.logits, axis):
                return False
            i += 1
        return True

    def can_write(self, out, bint with_classes, bint may_be_logits):
        """Whether results can go there: of the logits' type, of their shape or of the samples', and apart from all
        arrays of the call, but that it may be the very logits."""
        if not cnp.PyArray_CheckExact(out):
            return False
        cdef cnp.ndarray a = out
        if not (cnp.PyArray_ISWRITEABLE(a) and self.has_shape_of(a, with_classes)):
            return False
        if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(self.logits) or not is_behaved(a):
            return False
        if not is_nested(a):
            return False
        for other in (self.logits, self.labels, self.target, self.where, self.sample_weight, self.direction,
                      self.grad_output, self.given_class_weight, self.loss, self.out, self.hess):
            if other is None or are_apart(a, other):
                continue
            if not (may_be_logits and other is self.logits and is_same_view(a, other)):
                return False
        return True

    def new_output(self, bint with_classes):
        """An array for results; None where the logits are not contiguous native floats."""
        cdef cnp.ndarray z = self.logits
        cdef cnp.npy_intp shape[MAX_AXES]
        cdef int n_axes = cnp.PyArray_NDIM(z), number = cnp.PyArray_TYPE(z), axis, n = 0
        if number not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64, cnp.NPY_FLOAT16) or not cnp.PyArray_IS_C_CONTIGUOUS(z):
            return None
        for axis in range(n_axes):
            if with_classes or axis != self.class_axis:
                shape[n] = cnp.PyArray_DIM(z, axis)
                n += 1
        return cnp.PyArray_EMPTY(n, shape, number, 0)

    @property
    def n_samples(self):
        """The number of samples in the logits."""
        return cnp.PyArray_SIZE(self.logits) // cnp.PyArray_DIM(self.logits, self.class_axis)

    # Makes the job; False where an array is in a type that the kernels do not take.
    cdef bint describe(self, Job *job, const Operation *operation) except -1:
        cdef Axes axes
        self.start(job, &axes, operation, self.logits, self.class_axis)
        self.set_labels(job, &axes)
        if not (self.set_weights(job, &axes) and self.set_inputs(job, &axes) and self.set_outputs(job, &axes)):
            return False
        fold_axes(job, axes.n_arrays, axes.arrays)
        set_sample_strides(job, &axes)
        return True

    # Of the samples that are in `first`.
    cdef int start(self, Job *job, Axes *axes, const Operation *operation, cnp.ndarray first,
                   int class_axis) except -1:
        cdef Py_ssize_t n_samples = 1
        cdef int i
        axes.class_axis = class_axis
        axes.n = order_axes(first, class_axis, axes.order)
        axes.n_arrays = 0
        for i in range(axes.n):
            job.shape[i] = cnp.PyArray_DIM(first, axes.order[i])
            n_samples *= job.shape[i]
        start_job(job, operation, self.f32, n_samples, self.n_all or n_samples,
                  cnp.PyArray_DIM(self.logits, self.class_axis))
        job.n_axes = max(axes.n, 1)
        if axes.n == 0:
            job.shape[0] = 1
        return 0

    cdef int set_labels(self, Job *job, Axes *axes) except -1:
        if self.labels is not None:
            set_array(job, axes, LABELS, self.labels, False)
            job.block.label_type = label_type_of(self.labels)
            set_ignore_index(job, self.ignore_index)
        return 0

    cdef bint set_weights(self, Job *job, Axes *axes) except -1:
        if self.sample_weight is not None:
            if element_type(self.sample_weight, self.f32, False) < 0:
                return False
            set_array(job, axes, SAMPLE_WEIGHT, self.sample_weight, False)
        if self.class_weight is not None:
            job.options.class_weight = cnp.PyArray_DATA(self.class_weight)
        job.options.label_smoothing = self.label_smoothing
        job.options.temperature = self.temperature
        job.options.softcap = self.softcap
        job.options.z_loss = self.z_loss
        job.options.log_base = self.log_base
        job.block.options = &job.options
        return True

    cdef bint set_inputs(self, Job *job, Axes *axes) except -1:
        cdef softxent_block *b = &job.block
        cdef int class_axis = self.class_axis
        set_array(job, axes, LOGITS, self.logits, True)
        b.logits_type = element_type(self.logits, self.f32, True)
        b.logits_class_stride = stride_of(self.logits, class_axis)
        if self.target is not None:
            set_array(job, axes, TARGET, self.target, True)
            b.target_type = element_type(self.target, self.f32, True)
            b.target_class_stride = stride_of(self.target, class_axis)
        if self.where is not None:
            set_array(job, axes, WHERE, self.where, True)
            b.where_class_stride = stride_of(self.where, class_axis)
        if self.direction is not None:
            set_array(job, axes, DIRECTION, self.direction, True)
            b.direction_type = element_type(self.direction, self.f32, True)
            b.direction_class_stride = stride_of(self.direction, class_axis)
        if self.grad_output is not None:
            if element_type(self.grad_output, self.f32, False) < 0:
                return False
            set_array(job, axes, GRAD_OUTPUT, self.grad_output, False)
        return b.logits_type >= 0 and b.target_type >= 0 and b.direction_type >= 0

    cdef bint set_outputs(self, Job *job, Axes *axes) except -1:
        cdef softxent_block *b = &job.block
        cdef int class_axis = self.class_axis
        if self.loss is not None:
            set_array(job, axes, LOSS, self.loss, False)
            b.loss_type = element_type(self.loss, self.f32, True)
        if self.out is not None:
            set_array(job, axes, OUT, self.out, True)
            b.out_type = element_type(self.out, self.f32, True)
            b.out_row_stride = stride_of(self.out, class_axis)
            b.out_class_stride = stride_of(self.out, class_axis + job.operation.is_square)
        if self.hess is not None:
            set_array(job, axes, HESS, self.hess, True)
            b.hess_class_stride = stride_of(self.hess, class_axis)
            b.hess_kind = HESS_KINDS[self.hess_kind]
            if element_type(self.hess, self.f32, True) != b.out_type:
                return False
        if self.rank is not None:
            set_array(job, axes, RANKS, self.rank, False)
            set_array(job, axes, TOPS, self.top, False)
        b.accumulate = self.accumulate
        b.grad_scale = self.grad_scale
        return b.loss_type >= 0 and b.out_type >= 0

    def run(self, str op, int n_threads):
        """What `op` names, of every sample. False if the kernels do not take the arrays' types; BadSample.

        To be done in pieces: `n_all` is the number of samples in all, and the arrays are those of one piece at a time.
        """
        cdef Job job
        cdef Sums none
        cdef int number = OPERATIONS[op]
        cdef Py_ssize_t bad
        if not self.describe(&job, &operations[number]):
            return False
        memset(&none, 0, sizeof(Sums))
        bad = run(&job, n_threads, &self.sums if job.operation.has_losses else &none)
        if bad >= 0:
            raise bad_sample(self.logits, self.class_axis, bad)
        return True

    @property
    def total(self):
        """The sum of the losses so far, but for those that were written to `loss`."""
        return self.sums.loss + total_of(self.sums.unfinished)

    def count_labels(self, int n_threads):
        """The number of labels that are not ignored; BadSample."""
        cdef Job job
        cdef Axes axes
        self.start(&job, &axes, CROSS_ENTROPY, self.labels, cnp.PyArray_NDIM(self.labels))
        self.set_labels(&job, &axes)
        fold_axes(&job, axes.n_arrays, axes.arrays)
        set_sample_strides(&job, &axes)
        cdef Count count = count_labels(&job, n_threads)
        if count.bad_sample >= 0:
            raise bad_sample(self.labels, cnp.PyArray_NDIM(self.labels), count.bad_sample)
        return count.counted

    def total_weight(self):
        """The labels' class weights times the samples' weights, summed over those not ignored; for a target the sum of
        the samples' weights. None if the kernels do not take the weights' type; BadSample."""
        cdef Job job
        cdef Axes axes
        cdef double total = 0
        cdef Py_ssize_t bad
        cdef cnp.ndarray first = self.sample_weight if self.labels is None else self.labels
        self.start(&job, &axes, CROSS_ENTROPY, first, cnp.PyArray_NDIM(first))
        self.set_labels(&job, &axes)
        if not self.set_weights(&job, &axes):
            return None
        if self.labels is None:  # it is enough that there is a target
            job.block.target = cnp.PyArray_DATA(self.target)
            memset(job.steps[TARGET], 0, sizeof(job.steps[TARGET]))
        fold_axes(&job, axes.n_arrays, axes.arrays)
        set_sample_strides(&job, &axes)
        if job.n_samples <= CHUNK_LABELS:  # letting the GIL go costs more than so few
            bad = sum_weights(&job, &total)
        else:
            with nogil:
                bad = sum_weights(&job, &total)
        if bad >= 0:
            raise bad_sample(first, cnp.PyArray_NDIM(first), bad)
        return total


# ------------------------------------------------------------------------------------------------------------------
# The plain call.

cdef inline bint is_plain(object array) noexcept:
    return cnp.PyArray_CheckExact(array) and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> array)


cdef inline bint is_divisor(object x) noexcept:
    """Whether it is a float, positive and normal, as is one over it."""
    return type(x) is float and 2 * DBL_MIN <= <double> x <= DBL_MAX / 4


cdef inline bint is_default(object option, object default) noexcept:
    """Whether it is the very default, or a float of its value; nothing else, whatever it may be equal to."""
    return option is default or (type(option) is float and type(default) is float and
                                 PyFloat_AS_DOUBLE(option) == PyFloat_AS_DOUBLE(default))


cdef inline bint are_defaults(tuple options, tuple defaults) noexcept:
    cdef Py_ssize_t i
    if len(options) != len(defaults):  # the floor above has left one out: the general way says so
        return False
    for i in range(len(defaults)):
        if not is_default(options[i], defaults[i]):
            return False
    return True


def not_defaults(options, tuple defaults not None):
    """The places of those that are not at their defaults."""
    cdef tuple given = tuple(options)
    if len(given) != len(defaults):
        raise RuntimeError(f"{len(given)} options were handed down; Options has {len(defaults)}")
    return [i for i in range(len(defaults)) if not is_default(given[i], defaults[i])]


def plain_cross_entropy(bint with_grad, int n_threads, object logits, object labels, object axis, object ignore_index,
                        object reduction, object normalizer, object out, tuple options not None,
                        tuple defaults not None):
    """The call that most calls are; None if this is not one: the general way does it, or says what is wrong.

    float32 or float64 logits and integer labels in native, C-contiguous arrays, the class axis last, ignore_index None
    or an int of 64 bits, a normalizer that is None or a positive, normal float, `out` None or such an array for the
    gradient, apart from the inputs or the logits themselves, every one of the `options` at its default. Returns the
    loss and, for with_grad, the pair of loss and gradient. BadSample where a label is no class.
    """
    if not (is_plain(logits) and is_plain(labels) and type(axis) is int and type(reduction) is str and
            (ignore_index is None or is_index(ignore_index)) and (normalizer is None or is_divisor(normalizer)) and
            are_defaults(options, defaults)):
        return None
    cdef cnp.ndarray z = logits, y = labels, gradient = None, losses = None
    cdef int ndim = cnp.PyArray_NDIM(z), dtype = cnp.PyArray_TYPE(z), label_type = label_type_of(y)
    cdef Py_ssize_t n_samples = 1, n_classes, bad
    cdef Count count
    cdef int i
    if dtype not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or label_type < 0 or ndim != cnp.PyArray_NDIM(y) + 1:
        return None
    for i in range(ndim - 1):
        if cnp.PyArray_DIM(z, i) != cnp.PyArray_DIM(y, i):
            return None
        n_samples *= cnp.PyArray_DIM(z, i)
    n_classes = cnp.PyArray_DIM(z, ndim - 1)
    cdef bint is_mean = reduction == "mean", is_sum = not is_mean and reduction == "sum"
    if n_samples == 0 or n_classes == 0 or not (axis == -1 or axis == ndim - 1):
        return None
    if not (is_mean or is_sum or reduction == "none"):
        return None

    cdef Job job
    cdef Sums sums
    cdef double total, divisor = 1
    memset(&sums, 0, sizeof(Sums))
    start_job(&job, CROSS_ENTROPY, dtype == cnp.NPY_FLOAT32, n_samples, n_samples, n_classes)
    job.n_axes = 1
    job.shape[0] = n_samples
    job.steps[LOGITS][0] = job.steps[OUT][0] = n_classes * cnp.PyArray_ITEMSIZE(z)
    job.steps[LABELS][0] = cnp.PyArray_ITEMSIZE(y)
    job.steps[LOSS][0] = cnp.PyArray_ITEMSIZE(z)
    job.block.logits = cnp.PyArray_DATA(z)
    job.block.logits_sample_stride = job.block.out_sample_stride = n_classes
    job.block.logits_class_stride = job.block.out_class_stride = 1
    job.block.labels = cnp.PyArray_DATA(y)
    job.block.labels_stride = job.block.loss_stride = 1
    job.block.label_type = label_type
    set_ignore_index(&job, ignore_index)
    if with_grad:
        if out is None:
            gradient = cnp.PyArray_EMPTY(ndim, cnp.PyArray_DIMS(z), dtype, 0)
        else:
            if not (is_plain(out) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out)):
                return None
            gradient = out
            if cnp.PyArray_TYPE(gradient) != dtype or not cnp.PyArray_SAMESHAPE(gradient, z):
                return None
            if not (are_apart(gradient, z) or cnp.PyArray_DATA(gradient) == cnp.PyArray_DATA(z)):
                return None
            if not are_apart(gradient, y):
                return None
        job.block.out = cnp.PyArray_DATA(gradient)
    if not (is_mean or is_sum):
        losses = cnp.PyArray_EMPTY(ndim - 1, cnp.PyArray_DIMS(z), dtype, 0)
        job.block.loss = cnp.PyArray_DATA(losses)
    count.counted = n_samples
    count.bad_sample = -1
    # Known beforehand: how many count, and that the caller's array is not touched because of a bad label.
    if out is not None or job.block.use_ignore_index:
        count = count_labels(&job, n_threads)
    if count.bad_sample >= 0:
        raise bad_sample(y, ndim - 1, count.bad_sample)
    if count.counted == 0:
        return None
    if is_mean:
        divisor = count.counted if normalizer is None else <double> normalizer
        job.block.grad_scale = 1.0 / divisor
    bad = run(&job, n_threads, &sums)
    if bad >= 0:
        raise bad_sample(y, ndim - 1, bad)
    total = (sums.loss + total_of(sums.unfinished)) / divisor
    result = total if losses is None else losses
    return (result, gradient) if with_grad else result
