/* The drivers of fastact.h on NumPy arrays: built-in functions of Python, which fa_add_functions adds to `module`, the
 * address of a module.  They read sizes, dtypes and memory while the GIL is held, and compute without it.  cffi would
 * release the GIL before they read, and another thread could then change the shape of an array.  So they compare the
 * arrays of a call once more, and raise ValueError if one no longer fits the others.
 *
 * The caller has checked the arrays, C-contiguous and of the shapes and one of the dtypes that fastact.h names, and
 * holds a reference to each; an array that may be NULL there may be None here.  Each returns an enum fa_status, a loss
 * its value, or None if a label is out of range:
 *
 *   linear_maxout(x, weight, bias, y, argmax, threads, precision)
 *   linear_maxout_backward(grad_y, x, weight, argmax, grad_x, grad_weight, grad_bias, accumulate, threads, precision)
 *   maxout(z, y, argmax, threads)                        maxout_backward(grad_y, argmax, grad_z, threads)
 *   activation(code, parameter, slope, z, y, threads)    without a slope z may have any shape; code: an enum
 *                                                        fa_activation or the address of a struct fa_custom
 *   activation_backward(code, parameter, slope, grad_y, saved, grad_z, grad_slope, accumulate, threads)
 *   linear_activation(code, parameter, slope, x, weight, bias, y, z, threads, precision)
 *   linear_activation_backward(code, parameter, slope, grad_y, x, weight, saved, grad_x, grad_weight, grad_bias,
 *                              grad_slope, accumulate, threads, precision)
 *   matmul(x, y, trans1, trans2, out, threads, precision)    flags; out = op(x) @ op(y)
 *   layer_norm(eps, x, weight, bias, y, saved, threads)
 *   layer_norm_backward(grad_y, x, weight, saved, grad_x, grad_weight, grad_bias, accumulate, threads)
 *   dropout_keep(seed, p, keep, threads)    keep: bytes of any shape; seed: 0 to 2^64 - 1
 *   hash_embed(ids, tables, y, keys, threads)    ids: uint64; tables: a tuple of at least one tuple (table, column of
 *                            the ids, seed, scale or None); keys: uint32
 *   hash_embed_backward(grad_y, keys, tables, threads)    tables with the gradients in the place of the tables
 *   run_frozen(layers, count, type, in_features, out_features, x, y, threads)    layers: an address; type: dtype.num
 *
 *   mse(y, target, grad, threads)    binary_cross_entropy(logits, target, grad, threads)
 *   huber(y, target, delta, grad, threads)
 *   softmax_cross_entropy(logits, labels, label_smoothing, ignore_index, grad, threads)    labels: int64; None is
 *                                                        returned if a label is out of range
 *   max_norm(max_norm, data, threads)                    data of any shape: the last axis is the columns
 *   clip_grad_norm(grads, max_norm, threads)             grads: a list of arrays of any shapes; returns the norm
 *
 * The steps of the optimisers take a list of objects with the attributes of a Parameter, and lists of the state's
 * arrays.  They check everything themselves.  `types` is a pair of the types that an array may have.  They return
 * False, and write nothing, unless each parameter is as the kernels take it: data, grad and state of one shape and
 * dtype, C-contiguous, aligned, all but grad writeable; decay a bool; max_norm None or a float in range, which data of
 * shape () does not have.  All parameters are updated in their order.  An interrupt or a lack of memory is raised.
 *
 *   sgd(types, parameters, velocity, lr, momentum, nesterov, weight_decay, threads)     velocity is kept for momentum 0
 *   adam(types, parameters, mean, square, rate, beta1, beta2, unbias, eps, weight_decay, keep, threads)
 *
 * A step of one parameter checks everything itself too, and returns False, and writes nothing, unless data and grad are
 * as there, of at least one axis, and writeable, average is like them or None, mean and square are vectors of as many
 * numbers or both None, no two of them overlap, and the numbers are ints or floats within the range of the dtype:
 *
 *   update_parameter(types, data, grad, mean, square, average, max_norm, decay, rate, beta1, beta2, eps, shrink,
 *                    new_share, threads)
 *
 * A network reads the attributes of its layers, and checks everything itself.  It returns None, and nothing has been
 * written or drawn, where only the layers themselves can deal with an array or a step: it is no plain array, it does
 * not fit, it overlaps another one.  An interrupt or a lack of memory is raised.
 *
 *   network_forward(objects, parts, x, training, tape, precision, threads)    -> y, or (y, tape) for training
 *   network_backward(objects, parts, x, y, tape, grad_y, accumulate, needs_input_grad, threads)    -> grad_x, or True
 *   network_tape(tape)    -> for each step (offset of y, columns of y, offset of what it saved, columns of that, bytes
 *                            of an element of that, precision, factor of a dropout); offsets in bytes from the array's
 *                            start, -1 for an array that the tape does not hold.  A dropout or a sum in place has the
 *                            offset of the step before it, whose numbers are gone: no backward reads them
 *
 * `objects` is a tuple: (Parameter, Generator, ndarray, np.empty, the dtypes float32, float64 and uint8, a dict of the
 * tiers' numbers, a dict of activations, a function for those with keywords or not in it); api/network.c says more.
 * `tape` is an array of bytes for the tape, which a larger one replaces, or None.  `parts` is a tuple of (enum
 * fa_layer, a layer, the names of its attributes).  Parameters are objects with `data`, `grad` and `grad_out()`; a bias
 * or a slope may be None.  The attributes:
 *
 *   FA_LINEAR        precision, weight, bias, activation, its keywords, slope
 *   FA_MAXOUT        precision, weight, bias
 *   FA_ACTIVATION    activation, its keywords, slope
 *   FA_LAYER_NORM    eps, weight, bias
 *   FA_DROPOUT       p, rescale, a generator; or p, the factor of the numbers that are kept, and either an array of
 *                    bytes: 1 for each number of x that is kept; or an int, the seed of dropout_keep
 *   FA_WINDOW        rows on each side, an int from 1 to FA_MAX_WINDOW; the next part is a FA_LINEAR or FA_MAXOUT,
 *                    whose weight has 2 window + 1 times as many inputs as x has columns; the two are one step
 *   FA_BRANCH, FA_SUM    none
 *
 * A parameter whose `grad` is False needs no gradient.
 *
 * For callers that keep what they have looked up as long as it is true:
 *
 *   facts_hold(facts)    -> whether all hold, of a tuple (object, key, value, object, key, value, ...).  A dict has
 *                            `value` at `key`, no such key where `value` is `...`, and no key at all where `key` is
 *                            None; any other object has `value` for its attribute `key`
 *   memory_holds(api, tensors, known, arrays)    -> whether each tensor of a list is the known one, and a float tensor
 *                            of the CPU whose memory, dtype and shape the array has; None is known as None.  api:
 *                            the capsule __dlpack_c_exchange_api__
 *
 * Nothing protects a call from an array that is freed meanwhile: ndarray.resize(refcheck=False) in another thread. */
int fa_add_functions(uintptr_t module);

/* NPY_ABI_VERSION of the imported NumPy; `api` is the address of its capsule _ARRAY_API.  These functions read arrays
 * of the ABIs FA_NUMPY_ABI_1 and FA_NUMPY_ABI_2.  Returns 0 if `api` is not a capsule. */
enum fa_numpy_abi { FA_NUMPY_ABI_1 = 0x1000009, FA_NUMPY_ABI_2 = 0x2000000 };
unsigned int fa_numpy_abi(uintptr_t api);
