//! Choosers, exploration and replay of callback orders
