#pragma once
#define CUTLASS_IS_HERE 1
