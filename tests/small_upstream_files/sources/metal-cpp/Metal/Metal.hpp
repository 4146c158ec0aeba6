#pragma once
#define METAL_CPP_IS_HERE 1
