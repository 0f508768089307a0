"""Hidden states between layers and LibraGrad's gradient with respect to them."""
