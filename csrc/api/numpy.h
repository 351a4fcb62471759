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
 *   activation(code, parameter, slope, z, y, threads)    without a slope z may have any shape
 *   activation_backward(code, parameter, slope, grad_y, saved, grad_z, grad_slope, accumulate, threads)
 *   linear_activation(code, parameter, slope, x, weight, bias, y, z, threads, precision)
 *   linear_activation_backward(code, parameter, slope, grad_y, x, weight, saved, grad_x, grad_weight, grad_bias,
 *                              grad_slope, accumulate, threads, precision)
 *   run_frozen(layers, count, type, in_features, out_features, x, y, threads)    layers: an address; type: dtype.num
 *   mse(y, target, grad, threads)                        and binary_cross_entropy; huber(y, target, delta, grad,
 * threads) softmax_cross_entropy(logits, labels, label_smoothing, ignore_index, grad, threads)      labels: int64
 *   sgd(lr, momentum, nesterov, decay, max_norm, grad, velocity, data, threads)      data of any shape: the last axis
 *   adam(rate, beta1, beta2, unbias, eps, decay, max_norm, grad, mean, square, data, threads)     is the columns
 *   max_norm(max_norm, data, threads)
 *
 * Nothing protects a call from an array that is freed meanwhile: ndarray.resize(refcheck=False) in another thread. */
int fa_add_functions(uintptr_t module);

/* NPY_ABI_VERSION of the imported NumPy; `api` is the address of its capsule _ARRAY_API.  These functions read arrays
 * of the ABIs FA_NUMPY_ABI_1 and FA_NUMPY_ABI_2.  Returns 0 if `api` is not a capsule. */
enum fa_numpy_abi { FA_NUMPY_ABI_1 = 0x1000009, FA_NUMPY_ABI_2 = 0x2000000 };
unsigned int fa_numpy_abi(uintptr_t api);
