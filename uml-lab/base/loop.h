/*
 * The event loop: one epoll per process, timers folded into its timeout,
 * signals as descriptors (loop_add_signals). Single-threaded. Callbacks may
 * add and remove anything, themselves included.
 */
#ifndef UML_LAB_BASE_LOOP_H
#define UML_LAB_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "uml-lab/base/error.h"

struct loop;
struct loop_fd;
struct loop_timer;

/* events: EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLERR as epoll reports them; watched with EPOLLET too: as edges. */
typedef void (*loop_fd_fn)(void *arg, int fd, uint32_t events);
typedef void (*loop_timer_fn)(void *arg);
typedef void (*loop_signal_fn)(void *arg, int signo);

/* NULL + err on failure. */
struct loop *loop_new(struct error *err);
/* Removes all sources (their descriptors stay open: they are the caller's). NULL is fine. */
void loop_free(struct loop *loop);

/* Watches fd, which stays the caller's. The handle lives until loop_remove_fd() or loop_free(). NULL + err. */
struct loop_fd *loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *arg, struct error *err);
/* Changes the events waited for; 0 keeps the source but sleeps on EPOLLHUP/EPOLLERR only. */
int loop_set_events(struct loop_fd *source, uint32_t events);
/* Stops watching; call before closing the descriptor. NULL is fine. */
void loop_remove_fd(struct loop_fd *source);

/* Calls fn once after ms milliseconds (CLOCK_MONOTONIC); the handle may be re-armed. NULL + err. */
struct loop_timer *loop_add_timer(struct loop *loop, int64_t ms, loop_timer_fn fn, void *arg, struct error *err);
/* (Re)arms from now; ms < 0 disarms. */
void loop_arm_timer(struct loop_timer *timer, int64_t ms);
void loop_remove_timer(struct loop_timer *timer);

/* Blocks the signals (0-terminated list) and delivers them to fn from the loop. Once per loop. */
int loop_add_signals(struct loop *loop, const int *signals, loop_signal_fn fn, void *arg, struct error *err);

/* Runs until loop_stop(). Returns the status given to loop_stop(), or -1 + err when epoll fails. */
int loop_run(struct loop *loop, struct error *err);
/* One turn: waits at most timeout_ms (-1: until an event), dispatches, returns 0, or -1 + err. */
int loop_turn(struct loop *loop, int timeout_ms, struct error *err);
void loop_stop(struct loop *loop, int status);

/* CLOCK_MONOTONIC in milliseconds. */
int64_t loop_now_ms(void);
/* The same clock in nanoseconds. */
uint64_t loop_now_ns(void);

#endif
