// A stand-in for the headers that MLX's quantized.cpp includes: just enough for its host code to compile and
// to run to the point where it would launch a kernel, which is written down instead. Arrays have a shape,
// strides and flags and no data; the device is a string. Our own; nothing in here is MLX's.
//
// STAND_IN_STRIDE: the type of one stride, which changed once (before: size_t).
// STAND_IN_ENV: a file with the commit's own functions of the namespace env, in place of ours;
// STAND_IN_OWN_GET_VAR: get_var is among them.
#pragma once

#include <algorithm>
#include <cassert>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#ifndef STAND_IN_STRIDE
#define STAND_IN_STRIDE int64_t
#endif

// The neural accelerator's condition is the query's, not the system's.
#define __builtin_available(...) true
#ifndef MLX_ENABLE_NAX
#define MLX_ENABLE_NAX 1
#endif

#include "stand_in_log.h"
#include "stand_in_arrays.h"
#include "stand_in_primitives.h"
#include "stand_in_device.h"
#include "stand_in_ops.h"

#ifdef STAND_IN_ENV
#include STAND_IN_ENV
#endif
