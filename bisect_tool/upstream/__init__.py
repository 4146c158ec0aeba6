"""What can be measured: releases now; the git repository and pull requests join them."""
