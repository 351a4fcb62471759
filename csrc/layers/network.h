/* Layers that run one after the other in one call.
 *
 * A window is a part of the product that it stands before.  An array that a window takes has zeros before its first row
 * and after its last: those of the tape and of the workspace do, and a caller's x is copied once.
 *
 * A step takes what the step before it returns.  Steps of inference have no FA_DROPOUT.  Rows are above 0, and so are
 * the sizes of training. */
#ifndef FA_NETWORK_H
#define FA_NETWORK_H

#include "layers/step.h"

/* x (rows, in_features) -> y (rows, out_features), without anything for a backward.  Returns FA_OK or FA_NO_MEMORY. */
int infer(const struct call *call, const struct fa_step *const *steps, int64_t count, int64_t rows, const char *x,
          char *y);

/* The memory that a training forward fills for its backward: for each step its output, but for the last one's y, and
 * what its backward needs beside: z, argmax, or the byte of each number of x that says whether a dropout keeps it.
 * Where no backward reads the output of a step, a dropout or a sum after it works in place: the two have one array. */
struct tape_step {
  struct fa_step step; /* the addresses in it are those of the forward, and are not used */
  int64_t y, saved;    /* offsets from the tape's start; 0 for memory that the tape does not hold.  y for a window
                          stands between the zeros that the window reads */
};

struct tape {
  int64_t bytes; /* of the tape with its arrays */
  int64_t rows, count;
  int64_t x; /* the offset of a copy of x, for a window that takes x; else 0 */
  int dtype;
  struct tape_step steps[];
};

/* What a step keeps beside its input and its output: an array (rows, columns), empty for most steps. */
struct saved {
  int64_t columns;
  int itemsize;
};

struct saved saved_by(const struct fa_step *step, int itemsize);

/* The bytes of a tape, and the tape's layout written to `tape`, unless that is NULL. */
int64_t lay_out_tape(int dtype, int itemsize, int64_t rows, const struct fa_step *const *steps, int64_t count,
                     struct tape *tape);

/* Whether the steps are those of the forward that filled the tape, but for addresses and a dropout's factor. */
int tape_fits(const struct tape *tape, int dtype, const struct fa_step *const *steps, int64_t count);

/* The bytes of the dropout `index` in the tape. */
uint8_t *tape_keeps(struct tape *tape, int64_t index);

/* A forward that fills the tape, whose layout and dropout bytes are written; `steps` have their parameters. */
int train_forward(const struct call *call, const struct fa_step *const *steps, struct tape *tape, const char *x,
                  char *y);

/* grad_y -> grad_x, or NULL, and the gradients of the steps, to which `accumulate` adds. */
int train_backward(const struct call *call, const struct fa_step *const *steps, const struct tape *tape, const char *x,
                   const char *y, const char *grad_y, char *grad_x, int accumulate);

#endif
