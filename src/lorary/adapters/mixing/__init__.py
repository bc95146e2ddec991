"""How weighted experts combine at one site, by whichever way is fastest."""
