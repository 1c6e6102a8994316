# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True, autotestdict=False
"""The way from NumPy's arrays to the C library: blocks of samples, spread over threads.

Two ways lead to the C library. `plain_cross_entropy` takes the common call (contiguous floats, index labels, no
option) straight from the public function through the NumPy C-API. A `Call` takes everything else, after the Python
code has checked it. Both describe the work in a `Job`, and `run` carries it out.
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
    """A label is no class, or a target has an entry that is negative or nan.

    The argument is the sample's index, a tuple. Where several samples are bad it is the first in the order in which
    the kernels go through memory.
    """


# How many threads a call may use that asks for `n_threads`. A forked child cannot use the OpenMP runtime of its parent:
# it gets the calling thread alone, and so does a call inside another parallel region. Where OpenMP's own number has
# been lowered since the import, as threadpoolctl does, that number is the limit.
cdef int allowed_threads(int n_threads) noexcept nogil:
    cdef int limit = omp_get_max_threads()
    if softxent_forked or omp_in_parallel():
        return 1
    return min(n_threads, limit) if limit < openmp_threads else n_threads


def limit_of_threads(int n_threads):
    """How many of these threads a call may use, and the reason if they are fewer than it asked for, else None."""
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
# Operations.

ctypedef int (*OfLabels)(const softxent_block *, ptrdiff_t *) noexcept nogil
ctypedef int (*OfLogits)(const softxent_block *) noexcept nogil


# What an operation writes: a number for each sample, in `loss`, which is summed where no array takes it; an entry for
# each class, in `out`, or C^2 entries; the diagonal of the Hessian; ranks and top classes.
cdef enum Results:
    LOSSES = 1
    ENTRIES = 2
    SQUARES = 4
    DIAGONAL = 8
    RANKS = 16


@cython.final
@cython.auto_pickle(False)
cdef class Operation:
    """What a `Call` can compute: the C functions for float64 and float32, and what they write.

    An operation has functions of one kind. Those of labels may meet a bad sample, those of logits cannot.
    """
    cdef OfLabels of_labels[2]
    cdef OfLogits of_logits[2]
    cdef readonly bint has_losses, has_out, has_hess, has_ranks
    cdef bint is_square


cdef Operation of_logits(OfLogits f64, OfLogits f32, int results):
    cdef Operation new = Operation.__new__(Operation)
    new.of_logits[0], new.of_logits[1] = f64, f32
    new.has_losses, new.has_out, new.is_square = results & LOSSES, results & (ENTRIES | SQUARES), results & SQUARES
    new.has_hess, new.has_ranks = results & DIAGONAL, results & RANKS
    return new


cdef Operation of_labels(OfLabels f64, OfLabels f32, int results):
    cdef Operation new = of_logits(NULL, NULL, results)
    new.of_labels[0], new.of_labels[1] = f64, f32
    return new


CROSS_ENTROPY = of_labels(softxent_cross_entropy_f64, softxent_cross_entropy_f32, LOSSES)
GRAD = of_labels(softxent_cross_entropy_f64, softxent_cross_entropy_f32, LOSSES | ENTRIES)
GRAD_HESS = of_labels(softxent_cross_entropy_f64, softxent_cross_entropy_f32, LOSSES | ENTRIES | DIAGONAL)
RANK = of_labels(softxent_cross_entropy_and_rank_f64, softxent_cross_entropy_and_rank_f32, LOSSES | RANKS)
HVP = of_labels(softxent_cross_entropy_hvp_f64, softxent_cross_entropy_hvp_f32, ENTRIES)
CHECK_TARGET = of_labels(softxent_check_target_f64, softxent_check_target_f32, 0)
SOFTMAX = of_logits(softxent_softmax_f64, softxent_softmax_f32, ENTRIES)
LOG_SOFTMAX = of_logits(softxent_log_softmax_f64, softxent_log_softmax_f32, ENTRIES)
LOGSUMEXP = of_logits(softxent_logsumexp_f64, softxent_logsumexp_f32, LOSSES)
ENTROPY = of_logits(softxent_entropy_f64, softxent_entropy_f32, LOSSES)
ENTROPY_GRAD = of_logits(softxent_entropy_f64, softxent_entropy_f32, LOSSES | ENTRIES)
KL = of_labels(softxent_kl_divergence_f64, softxent_kl_divergence_f32, LOSSES)
CHECK_KL = of_labels(softxent_kl_divergence_f64, softxent_kl_divergence_f32, 0)  # its losses are not summed
KL_GRAD = of_labels(softxent_kl_divergence_f64, softxent_kl_divergence_f32, LOSSES | ENTRIES)
JVP = of_logits(softxent_softmax_jvp_f64, softxent_softmax_jvp_f32, ENTRIES)
LOG_JVP = of_logits(softxent_log_softmax_jvp_f64, softxent_log_softmax_jvp_f32, ENTRIES)
LOG_VJP = of_logits(softxent_log_softmax_vjp_f64, softxent_log_softmax_vjp_f32, ENTRIES)
JACOBIAN = of_logits(softxent_softmax_jacobian_f64, softxent_softmax_jacobian_f32, SQUARES)

cdef Operation plain_operation = CROSS_ENTROPY

HESS_KINDS = {"exact": SOFTXENT_EXACT, "xgboost": SOFTXENT_XGBOOST, "lightgbm": SOFTXENT_LIGHTGBM}


# ------------------------------------------------------------------------------------------------------------------
# The arrays of a call that have an entry, or a row of entries, for each sample.

# The types that an array may have for the kernels.
cdef enum Elements:
    FLOATS  # the type that is computed in; beside float32 also half precision
    WEIGHTS  # the type that is computed in
    INDICES  # any native integer
    OF_ONE_TYPE  # a single type, which the Python code has made sure of

# This block stays empty. The table below finds the offset of each field by its address.
cdef softxent_block at


@cython.final
@cython.auto_pickle(False)
cdef class Field:
    """One of the arrays, and where a block keeps it: the offsets of its pointer, strides and type in a softxent_block.

    An offset is 0 where the block has no such field.
    """
    cdef readonly str name  # for messages
    cdef readonly bint is_output, has_classes, is_real, may_be_half
    cdef Elements elements
    cdef int number
    cdef ptrdiff_t data, sample_stride, class_stride, type


cdef ptrdiff_t offset_of(const void *field) noexcept:
    return 0 if field == NULL else <const char *> field - <const char *> &at


DEF MAX_FIELDS = 16
cdef list fields = []


cdef Field field(str name, Elements elements, const void *data, const void *sample_stride,
                 const void *class_stride=NULL, const void *type=NULL, bint is_output=False):
    cdef Field new = Field.__new__(Field)
    new.name, new.elements, new.is_output, new.number = name, elements, is_output, len(fields)
    new.has_classes = class_stride != NULL
    new.is_real, new.may_be_half = elements in (FLOATS, WEIGHTS), elements == FLOATS
    new.data, new.sample_stride = offset_of(data), offset_of(sample_stride)
    new.class_stride, new.type = offset_of(class_stride), offset_of(type)
    fields.append(new)
    assert len(fields) <= MAX_FIELDS
    return new


cdef Field output(str name, Elements elements, const void *data, const void *sample_stride,
                  const void *class_stride=NULL, const void *type=NULL):
    return field(name, elements, data, sample_stride, class_stride, type, is_output=True)


# The table of arrays. A new array needs a line here, and an attribute of `Call` that `Call.arrays` lists at the same
# place. The Hessian's diagonal has no type of its own: it has that of `out`.
cdef Field LOGITS = field("logits", FLOATS, &at.logits, &at.logits_sample_stride, &at.logits_class_stride,
                          &at.logits_type)
cdef Field LABELS = field("labels", INDICES, &at.labels, &at.labels_stride, NULL, &at.label_type)
field("labels", FLOATS, &at.target, &at.target_sample_stride, &at.target_class_stride, &at.target_type)
cdef Field CLASSES = field("labels", INDICES, &at.classes, &at.masses_stride, NULL, &at.label_type)
field("labels", OF_ONE_TYPE, &at.masses, &at.masses_stride)
field("temperature", OF_ONE_TYPE, &at.temperatures, &at.temperatures_stride)
field("grad_output", WEIGHTS, &at.grad_output, &at.grad_output_stride)
field("v", FLOATS, &at.direction, &at.direction_sample_stride, &at.direction_class_stride, &at.direction_type)
field("where", OF_ONE_TYPE, &at.where, &at.where_sample_stride, &at.where_class_stride)
cdef Field SAMPLE_WEIGHT = field("sample_weight", WEIGHTS, &at.sample_weight, &at.sample_weight_stride)
cdef Field LOSS = output("the losses'", FLOATS, &at.loss, &at.loss_stride, NULL, &at.loss_type)
cdef Field OUT = output("the gradient's", FLOATS, &at.out, &at.out_sample_stride, &at.out_class_stride, &at.out_type)
cdef Field HESS = output("the diagonal's", FLOATS, &at.hess, &at.hess_sample_stride, &at.hess_class_stride)
output("the ranks'", OF_ONE_TYPE, &at.rank, &at.rank_stride)
output("the top classes'", OF_ONE_TYPE, &at.top, &at.top_stride)
output("the temperature's", OF_ONE_TYPE, &at.temperature_grad, &at.temperature_grad_stride)

FIELDS = tuple(fields)


# ------------------------------------------------------------------------------------------------------------------
# Jobs: what to compute, over which samples, in how many chunks.

# The losses are summed chunk by chunk, and then the chunks' sums in order. So the number of chunks must not depend on
# the number of threads. It has a limit because each chunk's sum is kept. A chunk has at least some 16 K logits: a
# smaller one takes less time than a thread needs to fetch it.
DEF MAX_CHUNKS = 512
DEF CHUNK_LOGITS = 16384
# Labels in a chunk of a call that reads labels alone: some 20 microseconds of work.
DEF CHUNK_LABELS = 65536
# How often a thread fetches chunks, if all threads are equally fast. Chunks that are fetched together are neighbours in
# memory: while the kernels work on a sample they prefetch the next.
DEF FETCHES = 16
# Length of the buffer on the stack for losses that are summed and not kept.
DEF LOSS_BUFFER = 1024
# Python checks for Ctrl-C each time so many logits are done. They take tenths of a second; with rare options, seconds.
DEF ROUND_LOGITS = 1 << 28
# With fewer logits a second thread costs more than it saves: they are some 10 microseconds of work.
DEF SERIAL_LOGITS = 32768


# The most axes that NumPy allows.
DEF MAX_AXES = 64


# The sums of a call's chunks so far. A call may take several runs, one for each piece of its samples. A chunk may then
# begin in one run and end in another.
cdef struct Sums:
    Py_ssize_t n_done
    double loss
    double unfinished[4]


# An array of a job: the address of its first entry, the bytes of an entry, and the bytes from one sample to the next
# along each sample axis. The offsets say where a block keeps its pointer and its stride.
cdef struct View:
    ptrdiff_t data_offset, stride_offset
    char *data
    Py_ssize_t itemsize
    Py_ssize_t steps[MAX_AXES]


# What to compute. The block describes the first sample and the strides of the last sample axis. There is at least one
# axis.
cdef struct Job:
    softxent_block block
    softxent_options options
    OfLabels of_labels
    OfLogits of_logits
    bint has_losses
    bint f32
    Py_ssize_t n_samples
    Py_ssize_t n_logits
    Py_ssize_t chunk_samples
    int n_axes
    Py_ssize_t shape[MAX_AXES]
    int n_views
    View views[MAX_FIELDS]


# What a chunk leaves: four sums of its losses; the status of its last call; its first bad sample, or -1.
cdef struct Chunk:
    double loss[4]
    int status
    Py_ssize_t bad_sample


# Begins the description of a job, which has no axes and arrays yet. The job is `n_samples` of a call's `n_all` samples;
# the latter decide how large a chunk is.
cdef void start_job(Job *job, Operation operation, bint f32, Py_ssize_t n_samples, Py_ssize_t n_all,
                    Py_ssize_t n_classes) except *:
    memset(&job.block, 0, sizeof(softxent_block))
    memset(&job.options, 0, sizeof(softxent_options))
    job.block.size = sizeof(softxent_block)
    job.block.isa = isa()
    job.block.n_classes = n_classes
    job.block.grad_scale = 1.0
    job.options.size = sizeof(softxent_options)
    job.of_labels = operation.of_labels[f32]
    job.of_logits = operation.of_logits[f32]
    job.has_losses = operation.has_losses
    job.f32 = f32
    job.n_samples = n_samples
    cdef Py_ssize_t sample_logits = n_classes * n_classes if operation.is_square else n_classes
    job.n_logits = n_samples * sample_logits
    job.chunk_samples = chunk_samples(n_all, sample_logits)
    job.n_views = 0


# Adds an array to a job, and returns its view. The caller fills in the steps.
cdef inline View *add_view(Job *job, Field field, cnp.ndarray array) noexcept:
    cdef View *view = &job.views[job.n_views]
    job.n_views += 1
    view.data_offset, view.stride_offset = field.data, field.sample_stride
    view.data, view.itemsize = <char *> cnp.PyArray_DATA(array), cnp.PyArray_ITEMSIZE(array)
    memcpy(<char *> &job.block + field.data, &view.data, sizeof(view.data))
    return view


cdef Py_ssize_t chunk_samples(Py_ssize_t n_samples, Py_ssize_t sample_logits) noexcept nogil:
    cdef Py_ssize_t samples = max((n_samples + MAX_CHUNKS - 1) // MAX_CHUNKS,
                                  (CHUNK_LOGITS + sample_logits - 1) // sample_logits)
    return (samples + 15) // 16 * 16 if samples > 16 else samples


cdef inline int call_kernel(const Job *job, const softxent_block *b, ptrdiff_t *bad_sample) noexcept nogil:
    if job.of_labels != NULL:
        return job.of_labels(b, bad_sample)
    return job.of_logits(b)


# Makes `b` the block of samples from `begin` on, to `end` or to the end of the last axis; returns their number.
cdef Py_ssize_t set_block(softxent_block *b, const Job *job, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t index[MAX_AXES]
    cdef Py_ssize_t left = begin
    cdef int n = job.n_axes, i, axis
    cdef char *first
    for axis in range(n - 1, 0, -1):
        index[axis] = left % job.shape[axis]
        left //= job.shape[axis]
    index[0] = left
    b[0] = job.block
    b.n_samples = min(end - begin, job.shape[n - 1] - index[n - 1])
    for i in range(job.n_views):
        first = job.views[i].data
        for axis in range(n):
            first += index[axis] * job.views[i].steps[axis]
        memcpy(<char *> b + job.views[i].data_offset, &first, sizeof(first))
    return b.n_samples


# Adds the losses to four sums in turn, the first of them to sum number `first % 4`. So the sums are the same however
# the losses are cut into blocks.
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


# Computes the samples from `begin` to `end`. The first of them is number `first` of its chunk.
cdef void run_chunk(const Job *job, Chunk *chunk, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first) noexcept nogil:
    cdef double losses[LOSS_BUFFER]
    cdef softxent_block b
    cdef Py_ssize_t n
    cdef ptrdiff_t bad = -1
    cdef bint summed = job.has_losses and job.block.loss == NULL
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


# Returns a call's share of the threads that it may use: calls that run at the same time share them. A call that has
# joined must leave.
cdef int join_teams(int n_threads) noexcept nogil:
    cdef long others = softxent_add_team(1)
    return max(1, allowed_threads(n_threads) // (1 + <int> others))


cdef void leave_teams() noexcept nogil:
    softxent_add_team(-1)


# Computes chunk number `p`, counted from the first that the job has samples of. An earlier run may have begun that one.
cdef void run_nth_chunk(const Job *job, Chunk *chunks, Py_ssize_t p, const Sums *before) noexcept nogil:
    cdef Py_ssize_t step = job.chunk_samples, first = before.n_done % step, begin = p * step - first
    if p == 0:
        memcpy(chunks[p].loss, before.unfinished, sizeof(chunks[p].loss))
    else:
        memset(chunks[p].loss, 0, sizeof(chunks[p].loss))
    run_chunk(job, &chunks[p], max(begin, 0), min(begin + step, job.n_samples), first if p == 0 else 0)


# Computes every chunk, over the threads, in rounds. Adds the losses to `sums` and returns the number of the first bad
# sample, or -1. The GIL is released here and not by the caller: otherwise Cython's prange would ask Python whether it
# is held, and with subinterpreters the answer is always yes.
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
        if chunks[p].status != SOFTXENT_OK:  # a fault of the Python code, which checks what it hands down
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


# Sets ignore_index, which is None or a number that a label may have.
cdef inline void set_ignore_index(Job *job, ignore_index) except *:
    if ignore_index is not None:
        job.block.use_ignore_index = 1
        job.block.ignore_index = ignore_index


# Whether `x` is an int of at most 64 bits, signed.
cdef inline bint is_index(object x) except -1:
    return type(x) is int and -2**63 <= x < 2**63


# How many labels of some samples are not ignored, and the first sample whose label is no class, or -1.
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


# Counts the labels of all samples, over the threads.
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


# Sums the weights of the samples that are not ignored. Returns the first sample whose label is no class, or -1.
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

# NumPy's number for the dtype of ml_dtypes, once an array of it has been seen. To compare names takes longer.
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
    """Whether an array is in native byte order, aligned, and all its strides are multiples of its itemsize.

    The last does not follow from alignment: some processors want less alignment than an element is long.
    """
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(array)
    cdef int axis
    if not cnp.PyArray_ISBEHAVED_RO(array):
        return False
    for axis in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_STRIDE(array, axis) % size != 0:
            return False
    return True


# The C library's name for the element type of an array, or -1 if it cannot read the array. Half precision it can read
# beside float32.
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
    """Whether one array lies behind the other in memory. Interleaved arrays share no byte, but are not apart."""
    cdef uintptr_t a_low = 0, a_high = 0, b_low = 0, b_high = 0
    extent_of(a, &a_low, &a_high)
    extent_of(b, &b_low, &b_high)
    return a_high <= b_low or b_high <= a_low


cpdef bint is_same_view(cnp.ndarray a, cnp.ndarray b) except -1:
    """Whether both arrays are the same entries of the same memory, in the same order."""
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


# Whether an array holds contiguous floats of the type that is computed in, all of them finite and at least 0.
cdef bint are_weights(cnp.ndarray array, bint f32) except -1:
    cdef Py_ssize_t n = cnp.PyArray_SIZE(array)
    cdef void *data = cnp.PyArray_DATA(array)
    cdef bint result
    if element_type(array, f32, False) < 0 or not cnp.PyArray_IS_C_CONTIGUOUS(array):
        return False
    if n <= CHUNK_LABELS:  # releasing the GIL costs more than the work
        return all_lie_in(<float *> data, n, FLT_MAX) if f32 else all_lie_in(<double *> data, n, DBL_MAX)
    with nogil:
        result = all_lie_in(<float *> data, n, FLT_MAX) if f32 else all_lie_in(<double *> data, n, DBL_MAX)
    return result


# ------------------------------------------------------------------------------------------------------------------
# The general call.

# Lists the sample axes of `array` that are longer than 1, those with the largest strides first. Returns their number.
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
    """Whether each stride is larger than all that the axes with smaller strides span: then no entries share memory.

    Entries of interleaved axes may share no memory either, but are not nested.
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
    """The sample axes that are longer than 1, in the order in which a `Call` goes through them."""
    cdef int order[MAX_AXES]
    return [order[i] for i in range(order_axes(array, class_axis, order))]


# The error for sample number `number`, counted in the order in which a `Call` goes through `array`.
cdef object bad_sample(cnp.ndarray array, int class_axis, Py_ssize_t number):
    cdef int order[MAX_AXES]
    cdef int n = order_axes(array, class_axis, order), i
    cdef list index = [0] * cnp.PyArray_NDIM(array)
    for i in range(n - 1, -1, -1):
        index[order[i]] = number % cnp.PyArray_DIM(array, order[i])
        number //= cnp.PyArray_DIM(array, order[i])
    del index[class_axis:class_axis + 1]
    return BadSample(tuple(index))


# Ends the description of a job. Joins two axes to one where the second continues the first in every array, and writes
# the strides of the last axis into the block.
cdef void end_job(Job *job) noexcept:
    cdef int last = 0, axis, i
    cdef ptrdiff_t stride
    cdef bint go_on
    for axis in range(1, job.n_axes):
        go_on = True
        for i in range(job.n_views):
            go_on &= job.views[i].steps[last] == job.views[i].steps[axis] * job.shape[axis]
        if go_on:
            job.shape[last] *= job.shape[axis]
        else:
            last += 1
            job.shape[last] = job.shape[axis]
        for i in range(job.n_views):
            job.views[i].steps[last] = job.views[i].steps[axis]
    job.n_axes = last + 1
    for i in range(job.n_views):
        stride = job.views[i].steps[last] // job.views[i].itemsize
        memcpy(<char *> &job.block + job.views[i].stride_offset, &stride, sizeof(stride))


# The class axis and the sample axes of the array that decides the order of a job's samples.
cdef struct Axes:
    int class_axis
    int n
    int order[MAX_AXES]


cdef inline Py_ssize_t stride_of(cnp.ndarray array, int axis) noexcept:
    return cnp.PyArray_STRIDE(array, axis) // cnp.PyArray_ITEMSIZE(array)


# Adds an array to a job. False if the kernels cannot read its type.
cdef bint add_array(Job *job, const Axes *axes, Field field, cnp.ndarray array) except -1:
    cdef char *block = <char *> &job.block
    cdef int type = 0, i, axis
    cdef ptrdiff_t stride
    if field.elements == INDICES:
        type = label_type_of(array)
    elif field.is_real:
        type = element_type(array, job.f32, field.may_be_half)
    if type < 0:
        return False
    cdef View *view = add_view(job, field, array)
    view.steps[0] = 0
    for i in range(axes.n):
        axis = axes.order[i]
        view.steps[i] = cnp.PyArray_STRIDE(array, axis - (not field.has_classes and axis > axes.class_axis))
    if field.type:
        memcpy(block + field.type, &type, sizeof(type))
    if field.has_classes:
        stride = stride_of(array, axes.class_axis)
        memcpy(block + field.class_stride, &stride, sizeof(stride))
    return True


@cython.final
@cython.auto_pickle(False)
cdef class Call:
    """A call that the Python code has checked: its arrays, as the user gave them, and its numbers.

    What is None, or 0, is left out. Labels and classes are native integers, `where` is bool, rank and top are native
    int64, temperatures native float64, and the class weights contiguous floats of the type that is computed in. So are
    masses, and classes are contiguous too: both have one axis more than the samples, the last. The other arrays may
    have any type. If the kernels cannot read one, the methods say so and do nothing. They can then be given `arrays`
    for one piece of the samples after the other: a list in the order of `FIELDS`, with the class axis behind the sample
    axes.
    """
    cdef public int class_axis
    cdef public bint f32
    cdef public cnp.ndarray logits, labels, target, classes, masses, temperatures
    cdef public cnp.ndarray grad_output, direction, where, sample_weight
    cdef public cnp.ndarray loss, out, hess, rank, top, temperature_grad
    cdef public cnp.ndarray class_weight
    # Arrays of the user's, by name, of which an attribute above is a copy, or has another name. No output may
    # overlap them.
    cdef public dict originals
    cdef public double label_smoothing, temperature, softcap, z_loss, log_base, grad_scale
    cdef public object ignore_index
    cdef public int hess_kind
    cdef public bint accumulate, target_holds_logits
    cdef Sums sums

    def __cinit__(self):
        self.originals, self.grad_scale = {}, 1

    cpdef list arrays(self):
        """The arrays in the order of `FIELDS`."""
        return [self.logits, self.labels, self.target, self.classes, self.masses, self.temperatures,
                self.grad_output, self.direction, self.where, self.sample_weight,
                self.loss, self.out, self.hess, self.rank, self.top, self.temperature_grad]

    # The methods below check the usual arguments quickly. If one of them returns False, it has done nothing, and the
    # Python code finds out what to do, or what is wrong.

    def take_logits(self, logits, axis):
        """Take the logits if they are an array of native floats, and `axis` is one of its axes."""
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
        """Take the labels if they are native integers of the samples' shape, or native floats of the logits'."""
        if not (cnp.PyArray_CheckExact(labels) and is_behaved(labels)):
            return False
        cdef cnp.ndarray y = labels
        if label_type_of(y) >= 0 and self.has_shape_of(y, False):
            self.labels = y
        elif cnp.PyArray_TYPE(y) in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) and self.has_shape_of(y, True):
            self.target = y
        else:
            return False
        return True

    def take_sample_weight(self, weights):
        """Take sample weights that are valid, contiguous, and of the type that is computed in."""
        if not (cnp.PyArray_CheckExact(weights) and self.has_shape_of(weights, False) and
                are_weights(weights, self.f32)):
            return False
        self.sample_weight = weights
        return True

    def take_class_weight(self, weights):
        """Take class weights that are valid, contiguous, and of the type that is computed in."""
        if not (cnp.PyArray_CheckExact(weights) and cnp.PyArray_NDIM(weights) == 1 and
                cnp.PyArray_DIM(weights, 0) == cnp.PyArray_DIM(self.logits, self.class_axis) and
                are_weights(weights, self.f32)):
            return False
        self.class_weight = self.originals["class_weight"] = weights
        return True

    # Whether an array has the shape of the logits, or of the samples.
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
        """Whether results can be written to `out`.

        It must have the logits' type, the shape of the logits or of the samples, and be apart from all arrays of the
        call. With `may_be_logits` it may be the logits themselves.
        """
        if not cnp.PyArray_CheckExact(out):
            return False
        cdef cnp.ndarray a = out
        if not (cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(self.logits) and self.has_shape_of(a, with_classes) and
                cnp.PyArray_ISWRITEABLE(a) and is_behaved(a) and is_nested(a)):
            return False
        for other in self.originals.values():
            if not are_apart(a, other):
                return False
        for other in self.arrays():
            if other is None or are_apart(a, other):
                continue
            if not (may_be_logits and other is self.logits and is_same_view(a, other)):
                return False
        return True

    def new_output(self, bint with_classes):
        """A new array for results; None if the logits are not contiguous native floats."""
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

    # Begins a job of the samples that are in `first`.
    cdef int start(self, Job *job, Axes *axes, Operation operation, cnp.ndarray first, int class_axis) except -1:
        cdef Py_ssize_t n_samples = 1, n_classes = cnp.PyArray_DIM(self.logits, self.class_axis)
        cdef int i
        axes.class_axis = class_axis
        axes.n = order_axes(first, class_axis, axes.order)
        job.shape[0] = 1
        job.n_axes = max(axes.n, 1)
        for i in range(axes.n):
            job.shape[i] = cnp.PyArray_DIM(first, axes.order[i])
            n_samples *= job.shape[i]
        start_job(job, operation, self.f32, n_samples, cnp.PyArray_SIZE(self.logits) // n_classes, n_classes)
        set_ignore_index(job, self.ignore_index)
        if self.class_weight is not None:
            job.options.class_weight = cnp.PyArray_DATA(self.class_weight)
        job.options.label_smoothing = self.label_smoothing
        job.options.temperature = self.temperature
        job.options.softcap = self.softcap
        job.options.z_loss = self.z_loss
        job.options.log_base = self.log_base
        job.block.options = &job.options
        job.block.hess_kind = self.hess_kind
        job.block.accumulate = self.accumulate
        job.block.target_holds_logits = self.target_holds_logits
        if self.classes is not None:
            job.block.n_masses = cnp.PyArray_DIM(self.classes, cnp.PyArray_NDIM(self.classes) - 1)
        job.block.grad_scale = self.grad_scale
        return 0

    # Describes the job. False if the kernels cannot read the type of an array.
    cdef bint describe(self, Job *job, Operation operation, list arrays, int class_axis) except -1:
        cdef Axes axes
        cdef int i
        self.start(job, &axes, operation, arrays[LOGITS.number], class_axis)
        for i in range(len(arrays)):
            if arrays[i] is not None and not add_array(job, &axes, <Field> fields[i], <cnp.ndarray> arrays[i]):
                return False
        if job.block.hess != NULL and element_type(arrays[HESS.number], self.f32, True) != job.block.out_type:
            return False
        if operation.is_square:
            job.block.out_row_stride = job.block.out_class_stride
            job.block.out_class_stride = stride_of(arrays[OUT.number], class_axis + 1)
        end_job(job)
        return True

    def run(self, Operation operation not None, int n_threads, list arrays=None):
        """Do the operation for every sample. False if the kernels cannot read the arrays' types.

        Raises BadSample.
        """
        cdef Job job
        cdef Sums none
        cdef int class_axis = self.class_axis
        cdef Py_ssize_t bad
        if arrays is None:
            arrays = self.arrays()
        else:
            class_axis = cnp.PyArray_NDIM(<cnp.ndarray> arrays[LOGITS.number]) - 1
        if not self.describe(&job, operation, arrays, class_axis):
            return False
        memset(&none, 0, sizeof(Sums))
        bad = run(&job, n_threads, &self.sums if job.has_losses else &none)
        if bad >= 0:
            raise bad_sample(arrays[LOGITS.number], class_axis, bad)
        return True

    @property
    def total(self):
        """The sum of the losses so far, without those that were written to `loss`."""
        return self.sums.loss + total_of(self.sums.unfinished)

    def count_labels(self, int n_threads):
        """The number of labels that are not ignored. Raises BadSample."""
        cdef Job job
        cdef Axes axes
        cdef int n_axes = cnp.PyArray_NDIM(self.labels)
        self.start(&job, &axes, plain_operation, self.labels, n_axes)
        add_array(&job, &axes, LABELS, self.labels)
        end_job(&job)
        cdef Count count = count_labels(&job, n_threads)
        if count.bad_sample >= 0:
            raise bad_sample(self.labels, n_axes, count.bad_sample)
        return count.counted

    def total_weight(self, list arrays=None):
        """The sum of the sample weights times the class weights of the labels, over the samples that are not ignored.

        For a target it is the sum of the sample weights. None if the kernels cannot read the weights' type. Raises
        BadSample.
        """
        cdef Job job
        cdef Axes axes
        cdef double total = 0
        cdef Py_ssize_t bad
        cdef cnp.ndarray labels = self.labels if arrays is None else arrays[LABELS.number]
        cdef cnp.ndarray weights = self.sample_weight if arrays is None else arrays[SAMPLE_WEIGHT.number]
        cdef cnp.ndarray first = weights if labels is None else labels
        cdef int n_axes = cnp.PyArray_NDIM(first)
        self.start(&job, &axes, plain_operation, first, n_axes)
        if labels is None:  # the C function asks for a target, but does not read it: any address will do
            job.block.target = cnp.PyArray_DATA(self.logits)
        else:
            add_array(&job, &axes, LABELS, labels)
        if weights is not None and not add_array(&job, &axes, SAMPLE_WEIGHT, weights):
            return None
        end_job(&job)
        if job.n_samples <= CHUNK_LABELS:  # releasing the GIL costs more than the work
            bad = sum_weights(&job, &total)
        else:
            with nogil:
                bad = sum_weights(&job, &total)
        if bad >= 0:
            raise bad_sample(first, n_axes, bad)
        return total


# ------------------------------------------------------------------------------------------------------------------
# The plain call.

cdef inline bint is_plain(object array) noexcept:
    return cnp.PyArray_CheckExact(array) and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> array)


cdef inline bint is_divisor(object x) noexcept:
    """Whether `x` is a float, and both it and `1 / x` are positive normal numbers."""
    return type(x) is float and 2 * DBL_MIN <= <double> x <= DBL_MAX / 4


cdef inline bint is_default(object option, object default) noexcept:
    """Whether an option is the default itself, or a float of the same value. Nothing else counts, equal or not."""
    return option is default or (type(option) is float and type(default) is float and
                                 PyFloat_AS_DOUBLE(option) == PyFloat_AS_DOUBLE(default))


cdef inline bint are_defaults(tuple options, tuple defaults) noexcept:
    cdef Py_ssize_t i
    if len(options) != len(defaults):  # the Python code has left one out: the general way says so
        return False
    for i in range(len(defaults)):
        if not is_default(options[i], defaults[i]):
            return False
    return True


def not_defaults(options, tuple defaults not None):
    """The positions of the options that are not at their defaults."""
    cdef tuple given = tuple(options)
    if len(given) != len(defaults):
        raise RuntimeError(f"{len(given)} options were handed down; Options has {len(defaults)}")
    return [i for i in range(len(defaults)) if not is_default(given[i], defaults[i])]


def plain_cross_entropy(bint with_grad, int n_threads, object logits, object labels, object axis, object ignore_index,
                        object reduction, object normalizer, object out, tuple options not None,
                        tuple defaults not None):
    """The plain call, as most calls are. None for any other: a `Call` then does it, or the checks say what is wrong.

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
    start_job(&job, plain_operation, dtype == cnp.NPY_FLOAT32, n_samples, n_samples, n_classes)
    job.n_axes = 1
    job.shape[0] = n_samples
    add_view(&job, LOGITS, z).steps[0] = n_classes * cnp.PyArray_ITEMSIZE(z)
    add_view(&job, LABELS, y).steps[0] = cnp.PyArray_ITEMSIZE(y)
    job.block.logits_class_stride = job.block.out_class_stride = 1
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
        add_view(&job, OUT, gradient).steps[0] = n_classes * cnp.PyArray_ITEMSIZE(z)
    if not (is_mean or is_sum):
        losses = cnp.PyArray_EMPTY(ndim - 1, cnp.PyArray_DIMS(z), dtype, 0)
        add_view(&job, LOSS, losses).steps[0] = cnp.PyArray_ITEMSIZE(z)
    end_job(&job)
    count.counted = n_samples
    count.bad_sample = -1
    # The mean needs to know how many labels count. An array of the user's must not be touched if a label is bad.
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
