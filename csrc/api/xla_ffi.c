#include "api/xla_ffi.h"

#include "api/abi.h"
#include "kernels/activation_list.h"

#define ONE(NAME, name, forward, backward) +1
enum { ACTIVATIONS = FA_ACTIVATIONS(ONE), MAX_PIECES = 256 };

static const int *defaults; /* written by Python; what `threads` is of a call whose attribute is 0 */

void fa_xla_set_defaults(const int *memory) { defaults = memory; }

/* ---- calls of XLA */

/* vmap puts axes in front of those that an operand has itself, as many for each: the leading axes, of the size 1 where
 * an operand is the same for all.  The call is then one for each group, as the results count them. */
struct call {
  const struct xla_call_frame *frame;
  const int64_t *leading;
  int64_t leading_axes, groups;
  int type;  /* the enum xla_dtype of the first argument */
  int dtype; /* its enum fa_dtype */
  int wrong; /* an operand or an attribute is not what the handler takes */
};

struct operand {
  char *data; /* NULL if the operand is absent */
  const int64_t *leading;
  int64_t groups, bytes; /* bytes of a group */
};

struct handler {
  int (*run)(struct call *c); /* -> an enum fa_status */
  int axes;                   /* of the first argument itself */
  int least_arguments, most_arguments, least_results, most_results, attributes;
};

static int64_t product(const int64_t *shape, int64_t axes) {
  int64_t size = 1;
  for (int64_t axis = 0; axis < axes; axis++) size *= shape[axis];
  return size;
}

/* The shape of the argument `index` -> shape [axes] */
static void read_shape(struct call *c, int index, int axes, int64_t *shape) {
  const struct xla_buffer *b = c->frame->arguments.buffers[index];
  c->wrong |= b->axes != c->leading_axes + axes;
  for (int axis = 0; axis < axes; axis++) shape[axis] = c->wrong ? 0 : b->shape[c->leading_axes + axis];
}

/* The operand `index` of some, of `type` and of the shape (a), (a, b) or (a, b, third); absent ones come last. */
static struct operand operand(struct call *c, const struct xla_operands *from, int index, int type, int axes, int64_t a,
                              int64_t b, int64_t third) {
  if (index >= from->count) return (struct operand){.groups = 1};
  const struct xla_buffer *buffer = from->buffers[index];
  const int64_t wanted[] = {a, b, third};
  int fits = buffer->dtype == type && buffer->axes == c->leading_axes + axes;
  for (int64_t axis = 0; fits && axis < c->leading_axes; axis++)
    fits = buffer->shape[axis] == c->leading[axis] || (from == &c->frame->arguments && buffer->shape[axis] == 1);
  for (int axis = 0; fits && axis < axes; axis++) fits = buffer->shape[c->leading_axes + axis] == wanted[axis];
  if (!fits) {
    c->wrong = 1;
    return (struct operand){.groups = 1};
  }
  const int64_t itemsize = type == XLA_UINT8 ? 1 : type == XLA_FLOAT32 ? 4 : 8;
  return (struct operand){.data = buffer->data,
                          .leading = buffer->shape,
                          .groups = product(buffer->shape, c->leading_axes),
                          .bytes = itemsize * product(wanted, axes)};
}

static struct operand argument(struct call *c, int index, int axes, int64_t a, int64_t b, int64_t third) {
  return operand(c, &c->frame->arguments, index, c->type, axes, a, b, third);
}

static struct operand result(struct call *c, int index, int axes, int64_t a, int64_t b, int64_t third) {
  return operand(c, &c->frame->results, index, c->type, axes, a, b, third);
}

/* The result after those read so far, if it is asked for. */
static struct operand result_if(int64_t asked, struct call *c, int *index, int axes, int64_t a, int64_t b,
                                int64_t third) {
  return asked ? result(c, (*index)++, axes, a, b, third) : (struct operand){.groups = 1};
}

/* The slope of a PReLU, which has one value, or one for each feature; an absent operand for any other activation. */
static struct operand slope_of(struct call *c, int activation, int index, int64_t features, int64_t *slopes) {
  *slopes = 0;
  if (activation != FA_PRELU) return (struct operand){.groups = 1};
  c->wrong |= index >= c->frame->arguments.count;
  if (c->wrong) return (struct operand){.groups = 1};
  read_shape(c, index, 1, slopes);
  return argument(c, index, 1, *slopes == 1 ? 1 : features, 0, 0);
}

/* The memory of an operand in a group. */
static void *at(const struct call *c, const struct operand *o, int64_t group) {
  if (c->groups == 1) return o->data;
  int64_t index = 0, stride = 1;
  for (int64_t axis = c->leading_axes - 1; o->data && axis >= 0; axis--) {
    if (o->leading[axis] != 1) index += group % c->leading[axis] * stride;
    stride *= o->leading[axis];
    group /= c->leading[axis];
  }
  return o->data + index * o->bytes;
}

/* Makes one group of all, where they follow each other in memory -> how many they were */
static int64_t merge_groups(struct call *c) {
  const int64_t groups = c->groups;
  c->groups = 1;
  return groups;
}

static const void *attribute(struct call *c, int index, int dtype) {
  static const int64_t zero = 0;
  const struct xla_scalar *scalar = c->frame->attributes.values[index];
  const int fits = c->frame->attributes.types[index] == XLA_SCALAR && scalar->dtype == dtype;
  c->wrong |= !fits;
  return fits ? scalar->value : &zero;
}

static int int_of(struct call *c, int index) { return (int)*(const int64_t *)attribute(c, index, XLA_INT64); }
static double number_of(struct call *c, int index) { return *(const double *)attribute(c, index, XLA_FLOAT64); }

static int threads_of(struct call *c, int index) {
  const int threads = int_of(c, index);
  return threads || !defaults ? threads : __atomic_load_n(defaults, __ATOMIC_RELAXED);
}

static int activation_of(struct call *c, int index) {
  const int code = int_of(c, index);
  c->wrong |= code < 0 || code >= ACTIVATIONS;
  return code;
}

static struct xla_error *error(const struct xla_api *api, int code, const char *message) {
  return api->create_error(&(struct xla_new_error){sizeof(struct xla_new_error), NULL, message, code});
}

static struct xla_error *unfit(const struct xla_call_frame *frame) {
  return error(frame->api, XLA_INVALID_ARGUMENT, "fastact: the operands or attributes are not what the handler takes");
}

static int all_buffers(const struct xla_operands *operands) {
  int fits = operands->size >= sizeof *operands;
  for (int64_t i = 0; fits && i < operands->count; i++)
    fits = operands->types[i] == XLA_BUFFER && operands->buffers[i]->size >= sizeof(struct xla_buffer);
  return fits;
}

/* Tells XLA the version, its own if that is an older one. */
static struct xla_error *describe(const struct xla_call_frame *frame) {
  struct xla_metadata *metadata = ((struct xla_metadata_extension *)frame->extensions)->metadata;
  if (metadata->size < offsetof(struct xla_metadata, traits) + sizeof metadata->traits) return unfit(frame);
  const int minor = frame->api->version.minor;
  metadata->version = (struct xla_version){
      .size = sizeof(struct xla_version), .major = XLA_MAJOR, .minor = minor < XLA_MINOR ? minor : XLA_MINOR};
  metadata->traits = 0;
  return NULL;
}

static struct xla_error *handle(const struct xla_call_frame *frame, const struct handler *h) {
  if (frame->size < sizeof *frame) return unfit(frame);
  if (frame->extensions && frame->extensions->type == XLA_METADATA) return describe(frame);
  const struct xla_operands *arguments = &frame->arguments, *results = &frame->results;
  if (frame->stage != XLA_EXECUTE || arguments->count < h->least_arguments || arguments->count > h->most_arguments ||
      results->count < h->least_results || results->count > h->most_results ||
      frame->attributes.size < sizeof frame->attributes || frame->attributes.count != h->attributes ||
      !all_buffers(arguments) || !all_buffers(results))
    return unfit(frame);
  const struct xla_buffer *first = arguments->buffers[0], *counts = results->buffers[0];
  struct call c = {
      .frame = frame, .leading = counts->shape, .leading_axes = first->axes - h->axes, .type = first->dtype};
  c.dtype = c.type == XLA_FLOAT32 ? FA_FLOAT32 : FA_FLOAT64;
  if (c.leading_axes < 0 || counts->axes < c.leading_axes || (c.type != XLA_FLOAT32 && c.type != XLA_FLOAT64))
    return unfit(frame);
  c.groups = product(c.leading, c.leading_axes);
  const int status = h->run(&c);
  if (c.wrong) return unfit(frame);
  if (status == FA_NO_MEMORY)
    return error(frame->api, XLA_RESOURCE_EXHAUSTED, "fastact: no memory for packed operands");
  if (status) return error(frame->api, XLA_INVALID_ARGUMENT, "fastact: a value of argmax is not below pieces");
  return NULL;
}

/* ---- the handlers of fastact.h */

static int linear_maxout(struct call *c) {
  int64_t x[2], w[3];
  int status = FA_OK;
  read_shape(c, 0, 2, x);
  read_shape(c, 1, 3, w);
  struct operand left = argument(c, 0, 2, x[0], w[2], 0), right = argument(c, 1, 3, w[0], w[1], w[2]);
  struct operand bias = argument(c, 2, 2, w[0], w[1], 0), y = result(c, 0, 2, x[0], w[0], 0);
  struct operand argmax = operand(c, &c->frame->results, 1, XLA_UINT8, 2, x[0], w[0], 0);
  const int precision = int_of(c, 0), threads = threads_of(c, 1);
  c->wrong |= w[1] < 1 || w[1] > MAX_PIECES;
  if (c->wrong) return FA_OK;
  if (left.groups == c->groups && right.groups == 1 && bias.groups == 1) x[0] *= merge_groups(c);
  for (int64_t g = 0; g < c->groups && status == FA_OK; g++)
    status = fa_linear_maxout(c->dtype, x[0], w[2], w[0], w[1], at(c, &left, g), at(c, &right, g), at(c, &bias, g),
                              at(c, &y, g), at(c, &argmax, g), threads, precision);
  return status;
}

static int linear_maxout_backward(struct call *c) {
  int64_t x[2], w[3];
  int status = FA_OK, next = 0;
  read_shape(c, 1, 2, x);
  read_shape(c, 2, 3, w);
  struct operand grad_y = argument(c, 0, 2, x[0], w[0], 0), left = argument(c, 1, 2, x[0], w[2], 0);
  struct operand right = argument(c, 2, 3, w[0], w[1], w[2]);
  struct operand argmax = operand(c, &c->frame->arguments, 3, XLA_UINT8, 2, x[0], w[0], 0);
  const int needs = int_of(c, 0), precision = int_of(c, 1), threads = threads_of(c, 2);
  struct operand grad_x = result_if(needs & 1, c, &next, 2, x[0], w[2], 0);
  struct operand grad_weight = result_if(needs & 2, c, &next, 3, w[0], w[1], w[2]);
  struct operand grad_bias = result_if(needs & 4, c, &next, 2, w[0], w[1], 0);
  c->wrong |= next != c->frame->results.count || w[1] < 1 || w[1] > MAX_PIECES;
  if (c->wrong) return FA_OK;
  if (needs == 1 && grad_y.groups == c->groups && left.groups == c->groups && argmax.groups == c->groups &&
      right.groups == 1)
    x[0] *= merge_groups(c);
  for (int64_t g = 0; g < c->groups && status == FA_OK; g++)
    status = fa_linear_maxout_backward(c->dtype, x[0], w[2], w[0], w[1], at(c, &grad_y, g), at(c, &left, g),
                                       at(c, &right, g), at(c, &argmax, g), at(c, &grad_x, g), at(c, &grad_weight, g),
                                       at(c, &grad_bias, g), 0, threads, precision);
  return status;
}

static int maxout(struct call *c) {
  int64_t z[3];
  read_shape(c, 0, 3, z);
  struct operand from = argument(c, 0, 3, z[0], z[1], z[2]), y = result(c, 0, 2, z[0], z[2], 0);
  struct operand argmax = operand(c, &c->frame->results, 1, XLA_UINT8, 2, z[0], z[2], 0);
  const int threads = threads_of(c, 0);
  c->wrong |= z[1] < 1 || z[1] > MAX_PIECES;
  if (c->wrong) return FA_OK;
  if (from.groups == c->groups) z[0] *= merge_groups(c);
  for (int64_t g = 0; g < c->groups; g++)
    fa_maxout(c->dtype, z[0], z[1], z[2], at(c, &from, g), at(c, &y, g), at(c, &argmax, g), threads);
  return FA_OK;
}

static int maxout_backward(struct call *c) {
  int64_t y[2];
  int status = FA_OK;
  read_shape(c, 0, 2, y);
  const int pieces = int_of(c, 0), threads = threads_of(c, 1);
  struct operand grad_y = argument(c, 0, 2, y[0], y[1], 0);
  struct operand argmax = operand(c, &c->frame->arguments, 1, XLA_UINT8, 2, y[0], y[1], 0);
  struct operand grad_z = result(c, 0, 3, y[0], pieces, y[1]);
  c->wrong |= pieces < 1 || pieces > MAX_PIECES;
  if (c->wrong) return FA_OK;
  if (grad_y.groups == c->groups && argmax.groups == c->groups) y[0] *= merge_groups(c);
  for (int64_t g = 0; g < c->groups && status == FA_OK; g++)
    status = fa_maxout_backward(c->dtype, y[0], pieces, y[1], at(c, &grad_y, g), at(c, &argmax, g), at(c, &grad_z, g),
                                threads);
  return status;
}

static int activation(struct call *c) {
  int64_t z[2], slopes;
  read_shape(c, 0, 2, z);
  const int code = activation_of(c, 0), threads = threads_of(c, 2);
  const double parameter = number_of(c, 1);
  struct operand from = argument(c, 0, 2, z[0], z[1], 0), slope = slope_of(c, code, 1, z[1], &slopes);
  struct operand y = result(c, 0, 2, z[0], z[1], 0);
  if (c->wrong) return FA_OK;
  if (from.groups == c->groups && slope.groups == 1) z[0] *= merge_groups(c);
  for (int64_t g = 0; g < c->groups; g++)
    fa_activation(c->dtype, z[0], z[1], code, parameter, at(c, &slope, g), slopes, at(c, &from, g), at(c, &y, g),
                  threads);
  return FA_OK;
}

static int activation_backward(struct call *c) {
  int64_t z[2], slopes;
  int status = FA_OK;
  read_shape(c, 0, 2, z);
  const int code = activation_of(c, 0), threads = threads_of(c, 2);
  const double parameter = number_of(c, 1);
  struct operand grad_y = argument(c, 0, 2, z[0], z[1], 0), saved = argument(c, 1, 2, z[0], z[1], 0);
  struct operand slope = slope_of(c, code, 2, z[1], &slopes), grad_z = result(c, 0, 2, z[0], z[1], 0);
  struct operand grad_slope = result(c, 1, 1, slopes, 0, 0);
  if (c->wrong) return FA_OK;
  if (code != FA_PRELU && grad_y.groups == c->groups && saved.groups == c->groups) z[0] *= merge_groups(c);
  for (int64_t g = 0; g < c->groups && status == FA_OK; g++)
    status = fa_activation_backward(c->dtype, z[0], z[1], code, parameter, at(c, &slope, g), slopes, at(c, &grad_y, g),
                                    at(c, &saved, g), at(c, &grad_z, g), at(c, &grad_slope, g), 0, threads);
  return status;
}

static int linear_activation(struct call *c) {
  int64_t x[2], w[2], slopes;
  int status = FA_OK;
  read_shape(c, 0, 2, x);
  read_shape(c, 1, 2, w);
  const int code = activation_of(c, 0), precision = int_of(c, 2), threads = threads_of(c, 3);
  const double parameter = number_of(c, 1);
  struct operand left = argument(c, 0, 2, x[0], w[1], 0), right = argument(c, 1, 2, w[0], w[1], 0);
  struct operand slope = slope_of(c, code, 2, w[0], &slopes), bias = argument(c, 2 + (code == FA_PRELU), 1, w[0], 0, 0);
  struct operand y = result(c, 0, 2, x[0], w[0], 0), z = result(c, 1, 2, x[0], w[0], 0);
  if (c->wrong) return FA_OK;
  if (left.groups == c->groups && right.groups == 1 && bias.groups == 1 && slope.groups == 1) x[0] *= merge_groups(c);
  for (int64_t g = 0; g < c->groups && status == FA_OK; g++)
    status =
        fa_linear_activation(c->dtype, x[0], w[1], w[0], code, parameter, at(c, &slope, g), slopes, at(c, &left, g),
                             at(c, &right, g), at(c, &bias, g), at(c, &y, g), at(c, &z, g), threads, precision);
  return status;
}

static int linear_activation_backward(struct call *c) {
  int64_t x[2], w[2], slopes;
  int status = FA_OK, next = 0;
  read_shape(c, 1, 2, x);
  read_shape(c, 2, 2, w);
  const int code = activation_of(c, 0), needs = int_of(c, 1), precision = int_of(c, 3), threads = threads_of(c, 4);
  const double parameter = number_of(c, 2);
  struct operand grad_y = argument(c, 0, 2, x[0], w[0], 0), left = argument(c, 1, 2, x[0], w[1], 0);
  struct operand right = argument(c, 2, 2, w[0], w[1], 0), saved = argument(c, 3, 2, x[0], w[0], 0);
  struct operand slope = slope_of(c, code, 4, w[0], &slopes);
  struct operand grad_x = result_if(needs & 1, c, &next, 2, x[0], w[1], 0);
  struct operand grad_weight = result_if(needs & 2, c, &next, 2, w[0], w[1], 0);
  struct operand grad_bias = result_if(needs & 4, c, &next, 1, w[0], 0, 0);
  struct operand grad_slope = result_if(needs & 8, c, &next, 1, slopes, 0, 0);
  c->wrong |= next != c->frame->results.count || (needs & 8 && code != FA_PRELU);
  if (c->wrong) return FA_OK;
  if (needs == 1 && grad_y.groups == c->groups && left.groups == c->groups && saved.groups == c->groups &&
      right.groups == 1 && slope.groups == 1)
    x[0] *= merge_groups(c);
  for (int64_t g = 0; g < c->groups && status == FA_OK; g++)
    status = fa_linear_activation_backward(c->dtype, x[0], w[1], w[0], code, parameter, at(c, &slope, g), slopes,
                                           at(c, &grad_y, g), at(c, &left, g), at(c, &right, g), at(c, &saved, g),
                                           at(c, &grad_x, g), at(c, &grad_weight, g), at(c, &grad_bias, g),
                                           at(c, &grad_slope, g), 0, threads, precision);
  return status;
}

/* The numbers: axes of the first argument, fewest and most arguments, fewest and most results, attributes. */

struct xla_error *fa_xla_linear_maxout(const struct xla_call_frame *frame) {
  return handle(frame, &(struct handler){linear_maxout, 2, 2, 3, 1, 2, 2});
}

struct xla_error *fa_xla_linear_maxout_backward(const struct xla_call_frame *frame) {
  return handle(frame, &(struct handler){linear_maxout_backward, 2, 4, 4, 1, 3, 3});
}

struct xla_error *fa_xla_maxout(const struct xla_call_frame *frame) {
  return handle(frame, &(struct handler){maxout, 3, 1, 1, 1, 2, 1});
}

struct xla_error *fa_xla_maxout_backward(const struct xla_call_frame *frame) {
  return handle(frame, &(struct handler){maxout_backward, 2, 2, 2, 1, 1, 2});
}

struct xla_error *fa_xla_activation(const struct xla_call_frame *frame) {
  return handle(frame, &(struct handler){activation, 2, 1, 2, 1, 1, 3});
}

struct xla_error *fa_xla_activation_backward(const struct xla_call_frame *frame) {
  return handle(frame, &(struct handler){activation_backward, 2, 2, 3, 1, 2, 3});
}

struct xla_error *fa_xla_linear_activation(const struct xla_call_frame *frame) {
  return handle(frame, &(struct handler){linear_activation, 2, 2, 4, 1, 2, 4});
}

struct xla_error *fa_xla_linear_activation_backward(const struct xla_call_frame *frame) {
  return handle(frame, &(struct handler){linear_activation_backward, 2, 4, 5, 1, 4, 5});
}
