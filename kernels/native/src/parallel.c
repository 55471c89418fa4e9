#include "parallel.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

/* How often a thread looks before it sleeps: some 100 to 200 us, what Python takes from one call of an
   update to the next. With a quarter of that an update on two threads took a tenth longer. */
#define SPINS 4000

typedef struct {
    int n, parts;
    xl_body body;
    void *context;
    fenv_t environment; /* rounding and denormals as the caller has them */
} job_t;

static struct {
    pthread_mutex_t mutex; /* guards all below; the atomics may be looked at without it */
    pthread_cond_t wake, done;
    job_t job;
    atomic_uint generation; /* of the job */
    atomic_int pending;     /* workers that have not finished it */
    int workers;            /* threads that were started */
    int spins;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static atomic_flag busy = ATOMIC_FLAG_INIT;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local int num_threads = 1;
static _Thread_local int inside = -1; /* as which worker this thread runs a body, if it does */

/* A child has the forking thread alone: it starts workers of its own when it needs them. */
static void forget_workers(void) {
    pthread_mutex_init(&pool.mutex, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.workers = 0;
    atomic_store(&pool.pending, 0);
    atomic_flag_clear(&busy);
}

static void register_fork(void) { pthread_atfork(NULL, NULL, forget_workers); }

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void run_part(const job_t *job, int part) {
    int start = (int)((int64_t)job->n * part / job->parts);
    int stop = (int)((int64_t)job->n * (part + 1) / job->parts);
    inside = part;
    for (int index = start; index < stop; index++) job->body(index, part, job->context);
    inside = -1;
}

static void *work(void *argument) {
    const int worker = (int)(intptr_t)argument;
    pthread_mutex_lock(&pool.mutex);
    unsigned seen = atomic_load(&pool.generation) - 1; /* it was started for the job that is there */
    for (;;) {
        if (atomic_load(&pool.generation) == seen) {
            const int spins = pool.spins;
            pthread_mutex_unlock(&pool.mutex);
            for (int i = 0; i < spins && atomic_load(&pool.generation) == seen; i++) relax();
            pthread_mutex_lock(&pool.mutex);
        }
        while (atomic_load(&pool.generation) == seen) pthread_cond_wait(&pool.wake, &pool.mutex);
        seen = atomic_load(&pool.generation);
        if (worker >= pool.job.parts) continue; /* not one of its workers: none waits for it */
        const job_t job = pool.job;
        pthread_mutex_unlock(&pool.mutex);
        fesetenv(&job.environment);
        run_part(&job, worker);
        pthread_mutex_lock(&pool.mutex);
        if (atomic_fetch_sub(&pool.pending, 1) == 1) pthread_cond_signal(&pool.done);
    }
    return NULL;
}

/* Start threads until there are `count` workers; fewer where the system has no more to give.
   Called with the mutex held. */
static void start_workers(int count) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the program's own threads' */
    while (pool.workers < count) {
        pthread_t thread;
        void *number = (void *)(intptr_t)(pool.workers + 1);
        if (pthread_create(&thread, NULL, work, number)) break;
        pthread_detach(thread);
        pool.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pool.spins = sysconf(_SC_NPROCESSORS_ONLN) > pool.workers ? SPINS : 0;
}

void xl_parallel_for(int n, xl_body body, void *context) {
    job_t job = {.n = n, .parts = num_threads < n ? num_threads : n, .body = body,
                 .context = context};
    if (job.parts < 2 || inside >= 0 || atomic_flag_test_and_set(&busy)) {
        const int worker = inside < 0 ? 0 : inside;
        for (int index = 0; index < n; index++) body(index, worker, context);
        return;
    }
    pthread_once(&once, register_fork);
    fegetenv(&job.environment);
    pthread_mutex_lock(&pool.mutex);
    if (pool.workers < job.parts - 1) start_workers(job.parts - 1);
    if (pool.workers < job.parts - 1) job.parts = pool.workers + 1;
    pool.job = job;
    atomic_store(&pool.pending, job.parts - 1);
    atomic_fetch_add(&pool.generation, 1);
    pthread_cond_broadcast(&pool.wake);
    const int spins = pool.spins;
    pthread_mutex_unlock(&pool.mutex);

    run_part(&job, 0);

    for (int i = 0; i < spins && atomic_load(&pool.pending); i++) relax();
    pthread_mutex_lock(&pool.mutex);
    while (atomic_load(&pool.pending)) pthread_cond_wait(&pool.done, &pool.mutex);
    pthread_mutex_unlock(&pool.mutex);
    atomic_flag_clear(&busy);
}

int xl_num_threads(void) { return num_threads; }

int xl_set_threads(int count) {
    num_threads = count < 1 ? 1 : count > XL_MAX_THREADS ? XL_MAX_THREADS : count;
    return num_threads;
}
