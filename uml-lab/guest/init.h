/* Pid 1: waits for the agent's order, then becomes the image's init, or is one itself. */
#ifndef UML_LAB_GUEST_INIT_H
#define UML_LAB_GUEST_INIT_H

/* Does not return. argv is what the kernel gave: what follows the program's name goes to the image's init. */
void init_run(int order_fd, char **argv) __attribute__((noreturn));

#endif
