/* Loss and gradient of a batch, its samples spread over threads.
 *
 *     cc -O2 batch.c $(python -m softxent config --cflags --libs) -lpthread -o batch && ./batch */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <softxent.h>

enum { N_SAMPLES = 8192, N_CLASSES = 1000, N_THREADS = 2 };
static float logits[N_SAMPLES][N_CLASSES], grad[N_SAMPLES][N_CLASSES], loss[N_SAMPLES];
static int32_t labels[N_SAMPLES];

static void *run(void *thread) /* a range of samples */
{
    const ptrdiff_t begin = *(int *)thread * (ptrdiff_t)N_SAMPLES / N_THREADS;
    const ptrdiff_t end = (*(int *)thread + 1) * (ptrdiff_t)N_SAMPLES / N_THREADS;
    softxent_block b = {
        .size = sizeof b, .n_samples = end - begin, .n_classes = N_CLASSES, .grad_scale = 1.0 / N_SAMPLES};
    b.logits = logits[begin], b.logits_sample_stride = N_CLASSES, b.logits_class_stride = 1;
    b.labels = labels + begin, b.labels_stride = 1, b.label_type = SOFTXENT_INT32;
    b.out = grad[begin], b.out_sample_stride = N_CLASSES, b.out_class_stride = 1;
    b.loss = loss + begin, b.loss_stride = 1;
    const int status = softxent_cross_entropy_f32(&b, NULL);
    if (status != SOFTXENT_OK) fprintf(stderr, "%s\n", softxent_strerror(status));
    return NULL;
}

int main(void)
{
    for (int i = 0; i < N_SAMPLES; labels[i] = rand() % N_CLASSES, ++i)
        for (int k = 0; k < N_CLASSES; ++k) logits[i][k] = (float)rand() / (float)RAND_MAX;
    pthread_t threads[N_THREADS];
    int numbers[N_THREADS];
    for (int t = 0; t < N_THREADS; ++t) numbers[t] = t, pthread_create(&threads[t], NULL, run, &numbers[t]);
    for (int t = 0; t < N_THREADS; ++t) pthread_join(threads[t], NULL);
    double sum = 0;
    for (int i = 0; i < N_SAMPLES; ++i) sum += loss[i];
    printf("mean loss %.6f\n", sum / N_SAMPLES);
}
