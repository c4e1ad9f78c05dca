/* spd.h - channels between the processes of a group, for programs written for the SPD kernel.
 *
 * An application file says which processes there are and which channels join them; `mutirao group run FILE`
 * starts them. A channel is named by its number in that file; input and output channels are numbered apart, each
 * from 0.
 *
 *     msg_type m = {sizeof task, (char *)&task};
 *     if (open_spd() < 0) return 1;
 *     sendc(0, &m);                 // waits until somebody has received it
 *     m.data = NULL;                // the library finds the room
 *     if (receivec(0, &m) == 0) { use(m.data, m.len); free(m.data); }
 *     return close_spd() < 0;
 *
 * A channel is used in one of two ways, at both of its ends: synchronously (sendc, receivec) or asynchronously
 * (a_sendc, a_receivec). The first crossing of the two is refused at both ends, by SPD_EMODE.
 *
 * However many processes a channel joins, exactly one receives each message; what one process sends over a channel
 * is received in that order. A message that waits for nobody in particular (one sender, several receivers) stays
 * with its sender until a receiver asks.
 *
 * All functions return 0 on success or one of the negative numbers below. They may be called by any thread; calls on
 * one channel wait for each other.
 *
 * Build:   cc program.c $(pkg-config --cflags --libs mutirao)
 */
#ifndef MUTIRAO_SPD_H
#define MUTIRAO_SPD_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    unsigned short len; /* bytes of the message; before receiving into `data`, the room there */
    char *data;
} msg_type;

#define SPD_EMPTY (-1)     /* a_receivec: no message is there                                          */
#define SPD_ENOTOPEN (-2)  /* open_spd was not called, or close_spd was                                */
#define SPD_ENOGROUP (-3)  /* this process was not started by `mutirao group run`, or opened twice     */
#define SPD_ECHANNEL (-4)  /* the application file gives this program no such channel                  */
#define SPD_EMODE (-5)     /* one end of the channel is synchronous, the other is not                  */
#define SPD_ETOOLONG (-6)  /* the next message is longer than the room, or than 65535; it stays        */
#define SPD_EENDED (-7)    /* every process at the other end has left; nothing will come or be taken   */
#define SPD_ELOST (-8)     /* a process at the other end, or the group, is lost                        */
#define SPD_EARGUMENT (-9) /* the message is NULL, or has a length and no data                         */
#define SPD_ESYSTEM (-10)  /* the system refuses something, such as memory                             */

/* Takes this process's place in its group: first of all, once. */
int open_spd(void);
/* Leaves the group: waits until all that was sent has been received, then tells the other ends that no more
 * comes. A process that ends without it may lose what it sent last. */
int close_spd(void);

/* Sends a message and waits until it is received. */
int sendc(int channel, msg_type *m);
/* Receives a message, waiting for it. With `data` NULL the library allocates what it needs, and the caller frees it
 * with free(); otherwise `len` is the room in `data`. `len` becomes the message's length. */
int receivec(int channel, msg_type *m);

/* Sends a message and returns; it is stored until it is received, whatever the delay. Waits only when as much is
 * stored as the application file allows, so that no message is lost by a program that does not look at what this
 * returns. The data is copied. */
int a_sendc(int channel, msg_type *m);
/* Receives a message if one is there, as receivec does; SPD_EMPTY if not. */
int a_receivec(int channel, msg_type *m);

/* What went wrong in this thread's last call that failed: which channel, who, and what to do. Never NULL; lives until
 * this thread's next call that fails. */
const char *spd_error(void);

#ifdef __cplusplus
}
#endif

#endif
